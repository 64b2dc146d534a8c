# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks whether the sides of a comparison are what they are taken for.

The runs of a side must be trainings that differ in their seed only, their
checkpoints must not be chosen on the images that they are tested on, and all
runs must be tested on the same images.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.runs import Run
from mmext.evaluation.sides import Side
from mmext.evaluation.tested import SETTINGS, checkpoint_name, settings
from mmext.utils.text import count, short, some

#: Share of the images on which one run has detections and another has none,
#: above which a test may have been cut off.
MOST_UNDETECTED = 0.01
#: Detections of a run from which its lowest score shows its threshold, and a
#: threshold that costs AP.
FEWEST_SCORES, HIGH_THRESHOLD = 100, 0.1
#: Parts of a config that define a training.
_TRAINING = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler')
_TRAINING += ('train_cfg', 'custom_hooks')
#: Keys that do not, such as folders, which differ between machines.
_NO_TRAINING = {'data_root', 'ann_file', 'data_prefix', 'checkpoint', 'seed'}
_NO_TRAINING |= {'num_workers', 'persistent_workers'}
_NO_TRAINING |= {'val_interval', 'val_begin'}


@dataclass(frozen=True)
class _Test:
    """A run of a side, its detections, and the meta file beside them."""

    side: str
    run: Run
    preds: Predictions
    meta: Mapping[str, Any]

    @property
    def seed(self) -> int | None:
        seed = self.meta.get('seed')
        return self.run.seed if seed is None else seed

    @property
    def stage(self) -> str | None:
        """Which checkpoint of its training it is, None if that is not known.

        ``'epoch_12'``, or ``'best_coco_bbox_mAP'`` without the epoch.
        """
        stem = Path(str(self.meta.get('checkpoint') or '')).stem
        kinds = r'(epoch_\d+|iter_\d+|best_.+?)(_(epoch|iter)_\d+)?'
        found = re.fullmatch(kinds, stem)
        return found and found[1]

    def __str__(self) -> str:
        return f'{self.preds.path} ({self.side})'


def _tests(side: Side, preds: Sequence[Predictions]) -> list[_Test]:
    return [
        _Test(side.name, run, found, read_meta(found.path))
        for run, found in zip(side.runs, preds, strict=True)
    ]


def check_seeds(side: Side, preds: Sequence[Predictions]) -> list[str]:
    """Returns why the runs of a side are not trainings of several seeds.

    A statement about the methods needs trainings of one config that are
    independent of each other.
    """
    found = []
    tests = _tests(side, preds)
    rule = 'A side is one training procedure with several seeds.'
    for a, b in itertools.combinations(tests, 2):
        pair = f'{side.name}: {a.preds.path} and {b.preds.path}'
        if _same_detections(a.preds, b.preds):
            found.append(
                f'{pair} hold the same detections: one seed counts as two. '
                'Give each seed once.'
            )
        elif a.seed == b.seed is not None:
            found.append(
                f'{pair} have the same seed, {a.seed}, and may be one '
                'training. Give each seed once.'
            )
        if a is not tests[0]:
            continue
        if differing := _config_differences(a, b):
            found.append(
                f'{pair} are of different configs ({some(differing, 3)}). '
                f'{rule} Give other configs as candidates.'
            )
        if a.stage and b.stage and a.stage != b.stage:
            found.append(
                f'{pair} are checkpoints of {a.stage} and {b.stage}. '
                f'{rule} Test the same epoch of each.'
            )
        one, other = settings(a.meta), settings(b.meta)
        unequal = [k for k in one if one[k] != other.get(k, one[k])]
        if unequal:
            found.append(
                f'{pair} were tested differently ({some(unequal)}). {rule} '
                'Test them in the same way.'
            )
    return found


def check_sides(
    sides: Sequence[Side],
    preds: Sequence[Sequence[Predictions]],
    image_ids: np.ndarray,
) -> list[str]:
    """Returns warnings about the tests of all sides.

    ``image_ids`` are the images with objects.
    """
    pairs = zip(sides, preds, strict=True)
    tests = [test for pair in pairs for test in _tests(*pair)]
    return [
        *_check_settings(tests),
        *_check_selection(tests),
        *_check_images(tests, image_ids),
        *_check_thresholds(tests),
    ]


def _check_settings(tests: Sequence[_Test]) -> list[str]:
    """Warns of tests of other checkpoints, or with other settings.

    A work folder may hold several tests, of which one is compared, and the
    runs may be tested at other scales, with other score thresholds, ...
    """
    found = []
    for test in tests:
        file, ending = test.preds.path, f'.{test.preds.iou_type}.json'
        others = [
            other
            for other in test.run.other_tests
            if other.name.endswith(ending) and other != file
        ]
        if others:
            found.append(
                f'{test.run.path} has predictions of several tests. Compared '
                f'is {file.name} ({test.side}), and not '
                f'{some([p.name for p in others], 3)}. To compare another, '
                f'give its file: {others[-1]}.'
            )
    known = [(test.side, settings(test.meta)) for test in tests]
    for setting in SETTINGS.values():
        names: dict[str, dict[str, None]] = {}  # of sides, by their value
        for side, values in known:
            if setting in values:
                names.setdefault(values[setting], {})[side] = None
        each = [f'{value} ({some(sides)})' for value, sides in names.items()]
        if len(each) > 1:
            found.append(
                f'The runs were tested differently: {setting} is '
                f'{"; ".join(each)}. The difference in AP may come from that. '
                'Test them in the same way.'
            )
    return found


def _check_selection(tests: Sequence[_Test]) -> list[str]:
    """Warns if checkpoints were chosen on the test images.

    ``save_best`` keeps the checkpoint with the highest metric of the
    validation. If the test has the same images, its AP is too high.
    """
    chosen = [
        x
        for x in tests
        if (checkpoint_name(x.meta) or x.preds.path.name).startswith('best_')
        and not _has_own_validation(x.run)
    ]
    if not chosen:
        return []
    text = (
        f'{some([x.preds.path for x in chosen], 3)}: the best checkpoint was '
        'chosen by its AP in validation. If these are the test images, its '
        'AP is too high, and intervals do not include that.'
    )
    names = list(dict.fromkeys(x.side for x in chosen))
    if len(names) < len({x.side for x in tests}):
        text += f' Only {some(names)} gains from it, so the sides are unequal.'
    return [
        f'{text} Test the last checkpoint of every run, or use other images '
        'for the test.'
    ]


def _check_thresholds(tests: Sequence[_Test]) -> list[str]:
    """Warns of score thresholds that seem to differ.

    It looks at the scores if not all tests say which threshold they had.
    """
    known = [(x.meta.get('test') or {}).get('score_thr') for x in tests]
    lowest = [
        (float(x.preds.score.min()), str(x))
        for x in tests
        if len(x.preds) >= FEWEST_SCORES
    ]
    if None not in known or len(lowest) < 2:
        return []
    (low, first), (high, second) = min(lowest), max(lowest)
    if high < HIGH_THRESHOLD or high < 2 * low:
        return []
    return [
        f'The lowest score of {second} is {high:.3g}, that of {first} '
        f'{low:.3g}. If score thresholds differed, the lower one has the '
        'advantage. Test with a low threshold, such as 0.001.'
    ]


def _check_images(tests: Sequence[_Test], image_ids: np.ndarray) -> list[str]:
    """Warns of detections that are missing, or the same on two sides.

    A test that was cut off has no detections on some of the images.
    """
    found = []
    detected = [np.isin(image_ids, x.preds.image_id) for x in tests]
    for i, test in enumerate(tests):
        found += [
            f'{test} and {other} hold the same detections. Is one a copy of '
            'the other?'
            for other in tests[:i]
            if test.side != other.side
            and _same_detections(test.preds, other.preds)
        ]
        missed = [int((there & ~detected[i]).sum()) for there in detected]
        most = int(np.argmax(missed))
        if missed[most] > MOST_UNDETECTED * len(image_ids):
            found.append(
                f'{test} has no detection on {missed[most]} of '
                f'{count(len(image_ids), "image")} with objects on which '
                f'{tests[most].preds.path} has some; these objects count as '
                'missed. Was its test cut off, or its score threshold higher? '
                'Test both in the same way.'
            )
    return found


def check_logged(runs: Sequence[Run]) -> list[str]:
    """Returns a warning if runs were validated on different data."""
    found = {}
    for run in runs:
        dataset = _dataset(run, 'val')
        while 'dataset' in dataset:  # a wrapper
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


def _dataset(run: Run, split: str) -> Mapping[str, Any]:
    loader = (run.config or {}).get(f'{split}_dataloader') or {}
    return loader.get('dataset') or {}


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


def _has_own_validation(run: Run) -> bool:
    """Whether a run was validated on other annotations than it was tested."""
    val, test = _dataset(run, 'val'), _dataset(run, 'test')
    keys = ('data_root', 'ann_file')
    return bool(val and test) and any(val.get(k) != test.get(k) for k in keys)


def _config_differences(a: _Test, b: _Test) -> list[str]:
    """What differs between the configs of two trainings."""
    configs = [a.run.config, b.run.config]
    if None not in configs:
        return training_differences(*configs)
    names = [str(x.meta.get('config_name') or '') for x in (a, b)]
    return names if all(names) and names[0] != names[1] else []


def training_differences(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> list[str]:
    """Returns what differs between two configs in the training."""
    parts = [{k: c.get(k) for k in _TRAINING} for c in (a, b)]
    return list(differences(*parts))


def differences(
    a: object,
    b: object,
    ignored: Collection[str] = _NO_TRAINING,
    where: str = '',
) -> Iterator[str]:
    """Yields ``key: value and other value`` of what differs.

    Args:
        a: A config, or a part of it.
        b: Another one.
        ignored: Keys, at any depth, that may differ.
        where: The key of the part. Default: the whole config.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            if key not in ignored:
                path = f'{where}.{key}'.lstrip('.')
                yield from differences(a.get(key), b.get(key), ignored, path)
    elif (
        isinstance(a, list | tuple)
        and isinstance(b, list | tuple)
        and len(a) == len(b)
    ):
        for n, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, ignored, f'{where}.{n}')
    elif a != b:
        yield f'{where}: {short(a, 40)} and {short(b, 40)}'
