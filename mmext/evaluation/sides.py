# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From the paths a user gives to runs, their predictions and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth, read_ground_truth
from mmext.evaluation.coco.predictions import not_predictions, read_meta
from mmext.evaluation.runs import Run, read_run


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the same training, one run a seed.

    Args:
        name: What tables call it.
        runs: One a seed.
    """

    name: str
    runs: tuple[Run, ...]

    def predictions(self, iou_type: str) -> list[Path]:
        """One file a run.

        Raises:
            UserError: A run has none of this IoU type.
        """
        for run in self.runs:
            if iou_type not in run.predictions:
                have = ', '.join(run.predictions) or 'none'
                raise UserError(
                    f'{run.path} has no {iou_type} predictions '
                    f'(it has: {have})',
                    'Write them: tools/test.py CONFIG CHECKPOINT --work-dir '
                    f'{run.path}. A comparison has one IoU type.',
                )
        return [run.predictions[iou_type] for run in self.runs]


def read_source(path: str | Path, which: str = 'last') -> Run:
    """A run from a work folder or from a prediction file.

    Args:
        path: Either.
        which: Metrics of the ``'last'`` validation or of the ``'best'``.

    Raises:
        UserError: It does not exist or is something else.
    """
    path = Path(path)
    if path.is_dir():
        return read_run(path, which)
    if not path.exists():
        raise UserError(
            f'{path} does not exist',
            'Give a work folder or a COCO result file.',
        )
    meta = read_meta(path)
    with path.open(encoding='utf-8', errors='replace') as stream:
        head = stream.read(1 << 16)
    if not head.lstrip().startswith('['):
        raise not_predictions(path, head)
    keys = {'bbox': '"bbox"', 'segm': '"segmentation"'}
    # mmdet's .segm.json has boxes too, with the masks' scores: not bbox AP.
    named = [kind for kind in keys if path.name.endswith(f'.{kind}.json')]
    kinds = named or [kind for kind, key in keys.items() if key in head]
    run = Run(
        name=path.name.removesuffix('.json'),
        path=path,
        seed=meta.get('seed'),
        predictions=dict.fromkeys(kinds or ['bbox'], path),
    )
    work_dir = path.parent.parent
    if path.parent.name == 'predictions' and any(work_dir.glob('*.py')):
        full = read_run(work_dir, which)
        seed = full.seed if run.seed is None else run.seed
        return replace(full, predictions=run.predictions, seed=seed)
    return run


def make_side(sources: Sequence[Run], name: str | None = None) -> Side:
    """Groups runs that differ in their seed only."""
    if name is None:
        words = {run.backbone for run in sources} - {'?'}
        name = words.pop() if len(words) == 1 else sources[0].name
    return Side(name, tuple(sources))


def name_apart(sides: Sequence[Side]) -> list[Side]:
    """Adds the first run's name to sides called alike, or else its path."""

    def alike(names: list[str], more: list[str]) -> list[str]:
        return [
            name if names.count(name) == 1 else f'{side.name} ({extra})'
            for side, name, extra in zip(sides, names, more, strict=True)
        ]

    names = alike([s.name for s in sides], [s.runs[0].name for s in sides])
    names = alike(names, [str(s.runs[0].path) for s in sides])
    names = alike(names, [str(i) for i in range(1, len(sides) + 1)])
    return [replace(s, name=n) for s, n in zip(sides, names, strict=True)]


def common_iou_type(sides: Sequence[Side]) -> str:
    """The first IoU type that every run has predictions of.

    Raises:
        UserError: There is none.
    """
    runs = [run for side in sides for run in side.runs]
    for iou_type in ('bbox', 'segm'):
        if all(iou_type in run.predictions for run in runs):
            return iou_type
    have = '; '.join(
        f'{r.path}: {", ".join(r.predictions) or "none"}' for r in runs
    )
    raise UserError(
        f'the runs have no kind of predictions in common ({have})',
        'Test them with one evaluator: tools/test.py CONFIG CHECKPOINT.',
    )


def find_ground_truth(
    sides: Sequence[Side], iou_type: str, ann: str | Path | None = None
) -> GroundTruth:
    """The annotation file given, or the one the runs were tested on.

    Raises:
        UserError: None is known, or the runs name different ones.
    """
    if ann is not None:
        return read_ground_truth(ann)
    files: dict[str, Path] = {}
    for side in sides:
        for file in side.predictions(iou_type):
            meta = read_meta(file)
            if meta.get('annotation_file'):
                seen = meta.get('annotation_sha256') or ''
                files.setdefault(seen, Path(meta['annotation_file']))
    if len(files) > 1:
        raise UserError(
            'the runs were tested on different ground truths: '
            + ', '.join(map(str, files.values())),
            'Test them on one annotation file, or name it with --ann.',
        )
    if not files:
        raise UserError(
            'nothing says which ground truth the predictions belong to',
            'Give it with --ann instances_val.json.',
        )
    return read_ground_truth(next(iter(files.values())))
