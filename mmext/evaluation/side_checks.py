# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks whether the sides of a comparison are what they are taken for.

The runs of a side must be trainings that differ in their seed only, their
checkpoints must not be chosen on the images that they are tested on, and all
runs must be tested on the same images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmext.evaluation.coco.predictions import Predictions, read_meta
from mmext.evaluation.runs import Run
from mmext.evaluation.sides import Side
from mmext.evaluation.tested import checkpoint_name, differing_settings
from mmext.utils.text import count, short, some

#: Share of the images on which one run has detections and another has none,
#: above which a test may have been cut off.
MOST_UNDETECTED = 0.01
#: Detections of a run from which its lowest score shows its threshold, and a
#: threshold that costs AP.
FEWEST_SCORES, HIGH_THRESHOLD = 100, 0.1
#: Parts of a config that define a training.
_TRAINING = (
    'model',
    'train_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'custom_hooks',
)
#: Keys that do not, such as folders, which differ between machines.
_NO_TRAINING = (
    'data_root',
    'ann_file',
    'data_prefix',
    'checkpoint',
    'num_workers',
    'persistent_workers',
    'seed',
    'val_interval',
    'val_begin',
)


def check_seeds(side: Side, preds: Sequence[Predictions]) -> list[str]:
    """Returns why the runs of a side are not trainings of several seeds.

    A statement about the methods needs trainings of one config that are
    independent of each other.
    """
    found = []
    metas = [read_meta(run.path) for run in preds]
    seeds = [
        run.seed if meta.get('seed') is None else meta['seed']
        for run, meta in zip(side.runs, metas, strict=True)
    ]
    for j in range(1, len(preds)):
        pairs = [f'{side.name}: {preds[j].path} and {p.path}' for p in preds]
        same = [i for i in range(j) if _same_detections(preds[i], preds[j])]
        equal = [i for i in range(j) if seeds[i] == seeds[j] is not None]
        if same:
            found.append(
                f'{pairs[same[0]]} hold the same detections: one seed '
                'counts as two. Give each seed once.'
            )
        elif equal:
            found.append(
                f'{pairs[equal[0]]} have the same seed, {seeds[j]}, and '
                'may be one training. Give each seed once.'
            )
        differing = _config_differences(side.runs, metas, 0, j)
        if differing:
            found.append(
                f'{pairs[0]} are of different configs ({some(differing, 3)}). '
                'A side is one training procedure with several seeds. Give '
                'other configs as candidates.'
            )
        lengths = [_length(metas[i]) for i in (0, j)]
        if None not in lengths and lengths[0] != lengths[1]:
            found.append(
                f'{pairs[0]} are checkpoints of {" and ".join(lengths)}. A '
                'side is one training procedure with several seeds. Test the '
                'same epoch of each.'
            )
    return found


def check_selection(sides: Sequence[Side], iou_type: str) -> list[str]:
    """Returns a warning if checkpoints were chosen on the test images.

    ``save_best`` keeps the checkpoint with the highest metric of the
    validation. If the test has the same images, its AP is too high.
    """
    chosen: list[tuple[str, Path]] = []
    for side in sides:
        for run, file in zip(
            side.runs, side.predictions(iou_type), strict=True
        ):
            name = checkpoint_name(read_meta(file)) or file.name
            if name.startswith('best_') and not _has_own_validation(run):
                chosen.append((side.name, file))
    if not chosen:
        return []
    names = list(dict.fromkeys(name for name, _ in chosen))
    text = (
        f'{some([file for _, file in chosen], 3)}: the best checkpoint was '
        'chosen by its AP in validation. If these are the test images, its '
        'AP is too high, and intervals do not include that.'
    )
    if len(names) < len(sides):
        text += f' Only {some(names)} gains from it, so the sides are unequal.'
    return [
        f'{text} Test the last checkpoint of every run, or use other images '
        'for the test.'
    ]


def check_tests(sides: Sequence[Side], iou_type: str) -> list[str]:
    """Returns warnings about tests of other checkpoints or settings.

    A work folder may hold several tests, of which one is compared, and the
    runs may be tested at other scales, with other score thresholds, ...
    """
    found = []
    metas = []
    for side in sides:
        files = side.predictions(iou_type)
        for run, file in zip(side.runs, files, strict=True):
            metas.append((side.name, read_meta(file)))
            ending = f'.{iou_type}.json'
            others = [p for p in run.other_tests if p.name.endswith(ending)]
            if others:
                found.append(
                    f'{run.path} has predictions of several tests. Compared '
                    f'is {file.name} ({side.name}), and not '
                    f'{some([p.name for p in others], 3)}. To compare '
                    f'another, give its file: {others[-1]}.'
                )
    for setting, values in differing_settings(metas).items():
        each = '; '.join(f'{v} ({some(names)})' for v, names in values.items())
        found.append(
            f'The runs were tested differently: {setting} is {each}. The '
            'difference in AP may come from that. Test them in the same way.'
        )
    return found


def check_thresholds(
    sides: Sequence[Side], preds: Sequence[Sequence[Predictions]]
) -> list[str]:
    """Returns a warning about score thresholds that seem to differ.

    It looks at the scores if not all tests say which threshold they had.
    """
    lowest, known = [], True
    for side, runs in zip(sides, preds, strict=True):
        for run in runs:
            test = read_meta(run.path).get('test') or {}
            known &= test.get('score_thr') is not None
            if len(run) >= FEWEST_SCORES:
                lowest.append((float(run.score.min()), side.name, run.path))
    if known or len(lowest) < 2:
        return []
    (low, name, path), (high, other, far) = min(lowest), max(lowest)
    if high < HIGH_THRESHOLD or high < 2 * low:
        return []
    return [
        f'The lowest score of {far} ({other}) is {high:.3g}, that of {path} '
        f'({name}) {low:.3g}. If score thresholds differed, the lower one '
        'has the advantage. Test with a low threshold, such as 0.001.'
    ]


def check_images(
    sides: Sequence[Side],
    preds: Sequence[Sequence[Predictions]],
    image_ids: np.ndarray,
) -> list[str]:
    """Returns warnings about detections that are missing or the same.

    A test that was cut off has no detections on some of ``image_ids``, the
    images with objects.
    """
    runs = [
        (side.name, run)
        for side, found in zip(sides, preds, strict=True)
        for run in found
    ]
    found = []
    detected = [np.isin(image_ids, run.image_id) for _, run in runs]
    for i, (name, run) in enumerate(runs):
        for other_name, other in runs[:i]:
            if name != other_name and _same_detections(run, other):
                found.append(
                    f'{run.path} ({name}) and {other.path} ({other_name}) '
                    'hold the same detections. Is one a copy of the other?'
                )
        missed = [int((there & ~detected[i]).sum()) for there in detected]
        most = int(np.argmax(missed))
        if missed[most] > MOST_UNDETECTED * len(image_ids):
            found.append(
                f'{run.path} ({name}) has no detection on {missed[most]} of '
                f'{count(len(image_ids), "image")} with objects on which '
                f'{runs[most][1].path} has some; these objects count as '
                'missed. Was its test cut off, or its score threshold higher? '
                'Test both in the same way.'
            )
    return found


def check_logged(runs: Sequence[Run]) -> list[str]:
    """Returns a warning if runs were validated on different data."""
    found = {}
    for run in runs:
        loader = (run.config or {}).get('val_dataloader') or {}
        dataset = loader.get('dataset') or {}
        while 'dataset' in dataset:
            dataset = dataset['dataset']
        classes = (dataset.get('metainfo') or {}).get('classes') or ()
        classes = classes if isinstance(classes, str) else some(classes, 20)
        name = Path(str(dataset.get('ann_file') or '')).name
        if classes or name:
            found.setdefault((classes, name), run.path)
    if len(found) < 2:
        return []
    (classes, file), (others, other) = list(found)[:2]
    what = f'the files {file} and {other}'
    if classes != others:
        what = f'the classes ({classes}) and ({others})'
    return [
        f'{some(found.values())} were validated on {what}: their AP cannot '
        'be compared.'
    ]


def _same_detections(a: Predictions, b: Predictions) -> bool:
    """Whether two files hold the same detections, in any order."""
    if not len(a) or len(a) != len(b):
        return False
    if not math.isclose(a.score.sum(), b.score.sum(), rel_tol=1e-9):
        return False  # sorting takes a second for a million detections
    tables = []
    for preds in (a, b):
        ids = (preds.image_id, preds.category_id, preds.score)
        columns = np.column_stack([*ids, np.nan_to_num(preds.box)])
        tables.append(columns[np.lexsort(columns.T)])
    return np.array_equal(*tables)


def _length(meta: Mapping[str, Any]) -> str | None:
    """``'epoch_12'`` of the checkpoint, None if it has another name."""
    stem = Path(str(meta.get('checkpoint') or '')).stem
    return stem if re.fullmatch(r'(epoch|iter)_\d+', stem) else None


def _has_own_validation(run: Run) -> bool:
    """Whether a run was validated on other annotations than it was tested."""
    data = []
    for split in ('val', 'test'):
        loader = (run.config or {}).get(f'{split}_dataloader') or {}
        data.append(loader.get('dataset'))
    if None in data:
        return False
    keys = ('data_root', 'ann_file')
    return any(data[0].get(key) != data[1].get(key) for key in keys)


def _config_differences(
    runs: Sequence[Run], metas: Sequence[Mapping[str, Any]], i: int, j: int
) -> list[str]:
    """What differs between the configs of two trainings."""
    configs = [runs[k].config for k in (i, j)]
    if None not in configs:
        parts = [{k: c.get(k) for k in _TRAINING} for c in configs]
        return list(_differences(*parts))
    names = [str(metas[k].get('config_name') or '') for k in (i, j)]
    return names if all(names) and names[0] != names[1] else []


def _differences(a: object, b: object, where: str = '') -> Iterator[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            if key not in _NO_TRAINING:
                yield from _differences(
                    a.get(key), b.get(key), f'{where}.{key}'.lstrip('.')
                )
    elif (
        isinstance(a, list | tuple)
        and isinstance(b, list | tuple)
        and len(a) == len(b)
    ):
        for n, pair in enumerate(zip(a, b, strict=True)):
            yield from _differences(*pair, f'{where}.{n}')
    elif a != b:
        yield f'{where}: {short(a, 40)} and {short(b, 40)}'
