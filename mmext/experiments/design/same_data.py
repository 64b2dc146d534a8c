# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks that configs can be compared: data, classes, all but the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

from mmext.checks.config import check_heads, find_config_splits
from mmext.checks.evaluators import check_evaluators
from mmext.checks.findings import require
from mmext.checks.preflight import preflight
from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.experiments.configs import unplanned_differences
from mmext.experiments.test_data import TestData, test_data
from mmext.utils.files import sha256
from mmext.utils.text import count, some

#: Test images below which intervals were not tested.
_FEWEST_IMAGES = 100


@contextmanager
def about(path: str) -> Iterator[None]:
    """Names the config in an error that does not."""
    try:
        yield
    except UserError as error:
        if path in error.problem:
            raise
        raise UserError(f'{path}: {error.problem}', error.fix) from error


def common_data(configs: Mapping[str, Config], task: str | None) -> TestData:
    """Returns the test data of all configs, which must be the same."""
    first = None
    for path, cfg in configs.items():
        with about(path):
            data = test_data(cfg, task)
        first, task = first or data, data.task
        same = (data.sha256, data.classes) == (first.sha256, first.classes)
        if not same:
            raise UserError(
                'the configs test on different data or classes: '
                f'{next(iter(configs))} on {_in_words(first)}; {path} on '
                f'{_in_words(data)}',
                'Methods are compared on the same images. Correct '
                'test_dataloader and test_evaluator.',
            )
    return first


def _in_words(data: TestData) -> str:
    where = data.annotations or count(data.images, 'image')
    return f'{where} (SHA-256 {data.sha256[:12]}), {some(data.classes, 3)}'


def check_data(
    data: TestData, truth: GroundTruth | None, ann: str | Path | None
) -> Iterator[str]:
    """Yields warnings about the test data."""
    if ann is not None:
        if not Path(ann).is_file():
            raise UserError(f'--ann {ann}: no such file', 'Check the path.')
        if sha256(ann) != data.sha256:
            raise UserError(
                f'--ann {ann} is not what the configs test on, '
                f'{_in_words(data)}',
                'Change test_dataloader and test_evaluator of the configs.',
            )
    if truth and not truth.of_classes(data.classes).dataset['annotations']:
        raise UserError(
            f'{data.annotations} has no annotations of these classes: no '
            'model has an AP on it',
            'Test on a split with annotations, such as the validation set.',
        )
    if data.images < _FEWEST_IMAGES:
        yield (
            f'{count(data.images, "test image")}: intervals were not tested '
            f'on fewer than {_FEWEST_IMAGES}.'
        )
    if len(data.classes) == 1:
        yield (
            f'The data have one class, {data.classes[0]}: the result is '
            'about this class, and not a mean over classes.'
        )


def differences(configs: Mapping[str, Config], allowed: bool) -> list[str]:
    """Returns in words what differs between the baseline and each candidate.

    Raises `UserError` if something does that is not ``allowed``.
    """
    first, *others = configs.values()
    found = [
        f'{path}: {difference}'
        for path, cfg in zip([*configs][1:], others, strict=True)
        for difference in unplanned_differences(first, cfg)
    ]
    if found and not allowed:
        raise UserError(
            'the configs differ from the baseline in more than the model '
            f'(first the value of the baseline): {some(found, 10)}',
            'Are these part of the claim? Then --allow-differences writes '
            'them into the plan. Otherwise make them equal.',
        )
    return found


def check_config(cfg: Config) -> None:
    """Builds the model, and checks that data and evaluators fit it.

    Images are checked when a run starts.
    """
    stages = ('train', 'val', 'test')
    cfg = copy.deepcopy(cfg)
    cfg.resume = False
    model = preflight(cfg, stages, data=False).model
    splits = find_config_splits(cfg, stages)
    require([*check_heads(cfg, model, splits), *check_evaluators(cfg, splits)])
