# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Turns the paths that a user gives into sides of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmext.errors import UserError
from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.formats import COCO, Format
from mmext.evaluation.coco.ground_truth import GroundTruth, read_ground_truth
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.coco.result_file import not_predictions
from mmext.evaluation.runs import Run, common_iou_type, model_of, read_run
from mmext.utils.documents import require_regular

#: A work folder, a COCO result file, or a run that has been read.
Source = str | Path | Run


@dataclass(frozen=True)
class Side:
    """One side of a comparison: runs that differ in their seed only."""

    name: str
    runs: tuple[Run, ...]

    def predictions(self, iou_type: str) -> list[Path]:
        """Returns one result file a run.

        Raises:
            UserError: A run has no predictions of this IoU type.
        """
        for run in self.runs:
            if iou_type not in run.predictions:
                have = ', '.join(run.predictions) or 'none'
                raise UserError(
                    f'{run.path} has no {iou_type} predictions '
                    f'(it has: {have})',
                    'Write them: mmext test CONFIG CHECKPOINT --work-dir '
                    f'{run.path}. A comparison has one IoU type.',
                )
        return [run.predictions[iou_type] for run in self.runs]


def read_source(
    source: Source, which: str = 'last', file_format: Format = COCO
) -> Run:
    """Reads a work folder (see `read_run`) or a result file.

    ``file_format`` is that of a result file which ``tools/test.py`` did not
    write, that is, which has no ``.meta.json``.

    Raises:
        UserError: The path does not exist or is something else.
    """
    if isinstance(source, Run):
        return source
    path = Path(source)
    if os.path.isdir(path):
        return read_run(path, which)
    if not os.path.exists(path):
        raise UserError(
            f'{path} does not exist',
            'Give a work folder or a COCO result file.',
        )
    meta = read_meta(path)
    require_regular(path)
    with path.open(encoding='utf-8', errors='replace') as stream:
        head = stream.read(1 << 16)
    if meta:
        file_format = COCO
    begins = head.lstrip('\ufeff \t\r\n')[:1]
    if begins != '[' and (file_format == COCO or begins != '{'):
        raise not_predictions(path, head)
    keys = {'bbox': '"bbox"', 'segm': '"segmentation"'}
    # mmdet's .segm.json has boxes with the scores of the masks: they do not
    # give the AP of boxes.
    named = [kind for kind in keys if path.name.endswith(f'.{kind}.json')]
    kinds = named or [kind for kind, key in keys.items() if key in head]
    predictions = dict.fromkeys(kinds or ['bbox'], path)
    seed = meta.get('seed')
    work_dir = path.parent.parent
    if path.parent.name == 'predictions' and any(work_dir.glob('*.py')):
        run = read_run(work_dir, which)
        seed = run.seed if seed is None else seed
        return replace(
            run,
            predictions=predictions,
            model=model_of(predictions),
            seed=seed,
            other_tests=(),
        )
    name = path.name.removesuffix('.json')
    return Run(
        name,
        path,
        seed=seed,
        model=model_of(predictions),
        predictions=predictions,
        file_format=file_format,
    )


def read_sides(
    groups: Iterable[Sequence[Source]], which: str = 'last'
) -> list[Side]:
    """Reads groups of sources, one a seed, and gives each its own name."""
    return name_apart(
        [make_side([read_source(s, which) for s in group]) for group in groups]
    )


def make_side(runs: Sequence[Run]) -> Side:
    """Names a side by its backbone if all have the same, or its first run."""
    words = {run.backbone for run in runs} - {'?'}
    name = words.pop() if len(words) == 1 else runs[0].name
    return Side(name, tuple(runs))


def name_apart(sides: Sequence[Side]) -> list[Side]:
    """Extends equal names by the run's name, its path, or a number."""
    names = [side.name for side in sides]
    for extras in (
        [side.runs[0].name for side in sides],
        [side.runs[0].path for side in sides],
        range(1, len(sides) + 1),
    ):
        names = [
            name if names.count(name) == 1 else f'{side.name} ({extra})'
            for side, name, extra in zip(sides, names, extras, strict=True)
        ]
    return [replace(s, name=n) for s, n in zip(sides, names, strict=True)]


def predicted_iou_type(sides: Sequence[Side]) -> str:
    """Returns the first IoU type that every run has predictions of."""
    return common_iou_type(
        [(run.path, run.predictions) for side in sides for run in side.runs],
        'predictions',
        'Test them with the same evaluator: mmext test CONFIG CHECKPOINT.',
    )


def named_files(
    sides: Sequence[Side], iou_type: str
) -> list[tuple[str, Path]]:
    """Returns the name of the side and the result file of every run."""
    return [
        (side.name, path)
        for side in sides
        for path in side.predictions(iou_type)
    ]


def find_ground_truth(
    sides: Sequence[Side], iou_type: str, ann: str | Path | None = None
) -> GroundTruth:
    """Reads ``ann``, by default the file that the runs were tested on.

    Raises:
        UserError: The file is not known, or the runs name different files.
    """
    if ann is not None:
        return read_ground_truth(ann)
    files: dict[str, Path] = {}
    for _, file in named_files(sides, iou_type):
        meta = read_meta(file)
        if meta.get('annotation_file'):
            tested = meta.get('annotation_sha256') or ''
            files.setdefault(tested, Path(meta['annotation_file']))
    if len(files) > 1:
        raise UserError(
            'the runs were tested on different ground truths: '
            + ', '.join(map(str, files.values())),
            'Test them on the same annotation file, or name it with --ann.',
        )
    if not files:
        raise UserError(
            'the ground truth of the predictions is not known',
            'Give it with --ann instances_val.json.',
        )
    return read_ground_truth(next(iter(files.values())))


def read_detections(
    sources: Iterable[Source],
    ann: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[GroundTruth, list[tuple[str, Predictions]], list[str]]:
    """Returns the ground truth, (name, detections) of each run, warnings.

    ``ann`` is as in `find_ground_truth`, ``classes`` as in
    `~mmext.evaluation.classes.choose_classes`.
    """
    sides = read_sides([source] for source in sources)
    iou_type = predicted_iou_type(sides)
    truth, warnings = choose_classes(
        find_ground_truth(sides, iou_type, ann),
        named_files(sides, iou_type),
        classes,
    )
    runs = []
    for side in sides:
        [run], [path] = side.runs, side.predictions(iou_type)
        preds = read_predictions(path, truth, iou_type, run.file_format)
        runs.append((side.name, preds))
        warnings += preds.warnings
    return truth, runs, warnings
