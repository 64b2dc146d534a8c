# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.compare`: detectors on the same images, with intervals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmext.errors import UserError
from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.matching import AREAS, Matches, match
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.groups import read_groups
from mmext.evaluation.report.report import Report
from mmext.evaluation.report.results import EvaluatedSide
from mmext.evaluation.runs import Run
from mmext.evaluation.side_checks import check_seeds, check_sides
from mmext.evaluation.sides import (
    Side,
    Source,
    find_ground_truth,
    named_files,
    predicted_iou_type,
    read_sides,
)
from mmext.evaluation.statistics.comparison import compare_resampled, correct
from mmext.evaluation.statistics.resampling import ImageBootstrap, Resampled
from mmext.evaluation.tested import Complexity, cost_of
from mmext.utils.ahead import computed_ahead

if TYPE_CHECKING:
    from mmext.evaluation.cost.latency import Latency


def compare(
    runs: Sequence[Source] | None = None,
    *,
    baseline: Source | Sequence[Source] | None = None,
    candidates: Sequence[Source | Sequence[Source]] | None = None,
    ann: str | Path | None = None,
    classes: Sequence[str] | None = None,
    iou_type: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    quick: bool = False,
    threads: int | None = None,
    cost: bool = True,
    latency: bool = False,
    which: str = 'last',
    groups: str | Path | None = None,
    margin: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Compares detectors by their predictions on the same images.

    A source is a work folder in which ``tools/test.py`` wrote predictions, a
    COCO result file, or a run from :func:`~mmext.evaluation.runs.read_run`.

    Args:
        runs: Sources with one seed each, the baseline first. Give either
            these or ``baseline`` and ``candidates``.
        baseline: A source, or several that differ in their seed only.
        candidates: One or several such entries.
        ann: COCO annotation file. Default: the one that the runs were tested
            on, which result files alone do not name.
        classes: Names of the classes to compare on. Default: those that every
            run was tested on.
        iou_type: ``'bbox'`` or ``'segm'``. Default: the first that every run
            has predictions of.
        resamples: Number of bootstrap resamples, at least 100 and at least
            2 / (1 - level). Default: 1000.
        level: Coverage of the intervals, from 0.5 to below 1. Default: 0.95.
        seed: Seed of the resampling. Default: 0.
        quick: Do not compute AP and AR by object size. Default: False.
        threads: Number of threads. Default: one a CPU, at most 2.
        cost: Show the parameters and FLOPs that testing wrote. Default: True.
        latency: Measure the speed of sides with a config, at batch sizes 1
            and 16. The configs are executed: use it only for your own.
            Default: False.
        which: Show the training of work folders up to the ``'last'``
            validation or the ``'best'`` one. Default: ``'last'``.
        groups: What says which test images belong together, such as the
            frames of a video, so that they are resampled together; see
            :func:`~mmext.evaluation.groups.read_groups`. Default: none do.
        margin: A loss of AP, from 0 to 1, that would not matter. The verdict
            says whether a larger one is excluded. Default: None.
        progress: Called with what is being done and the share that is done,
            from 0 to 1. Default: None.

    Returns:
        The report. Its values are shares from 0 to 1.

    Raises:
        UserError: A source, the annotations or a number cannot be used, or
            they do not belong together.

    Example:
        >>> report = mmext.compare(['a.bbox.json', 'b.bbox.json'],
        ...                        ann='instances_val.json')
        >>> report.comparisons[0].differences['AP'].interval
        (0.0042, 0.0198)
        >>> report.write('report')
    """
    _require_numbers(resamples, level, threads, margin)
    sides = read_sides(_groups(runs, baseline, candidates), which)
    iou_type = iou_type or predicted_iou_type(sides)
    truth, warnings = choose_classes(
        find_ground_truth(sides, iou_type, ann),
        named_files(sides, iou_type),
        classes,
    )
    areas = ('all',) if quick else tuple(AREAS)
    threads = threads or min(2, os.cpu_count() or 1)
    group = None if groups is None else read_groups(groups, truth)

    # Before the long part: a model that cannot be built raises an error.
    costs = [_cost(side, cost, latency) for side in sides]
    bootstrap = ImageBootstrap(len(truth.image_ids), resamples, seed, group)
    files = [
        (side.name, *run_and_file)
        for side in sides
        for run_and_file in zip(
            side.runs, side.predictions(iou_type), strict=True
        )
    ]

    def read(file: tuple[str, Run, Path]) -> tuple[Predictions, Matches]:
        _, run, path = file
        preds = read_predictions(path, truth, iou_type, run.file_format)
        return preds, match(truth, preds, areas)

    def report(n: int, step: str, start: float, share: float) -> None:
        if progress is not None:
            what = f'{files[n][0]} ({n + 1} of {len(files)}): {step}'
            progress(what, (n + start + (1 - start) * share) / len(files))

    def evaluate() -> Iterator[tuple[Predictions, Matches, Resampled]]:
        report(0, 'reading', 0.0, 0.0)
        # The next run is read while one is resampled.
        for n, (preds, matches) in enumerate(computed_ahead(read, files)):
            shown = partial(report, n, 'resampling', 0.3)
            yield preds, matches, bootstrap.evaluate(matches, shown, threads)

    found = evaluate()
    evaluated: list[EvaluatedSide] = []
    resampled: list[Sequence[Resampled]] = []
    for side, measured in zip(sides, costs, strict=True):
        preds, matches, results = zip(
            *islice(found, len(side.runs)), strict=True
        )
        evaluated.append(
            EvaluatedSide(side.name, side.runs, preds, matches, *measured)
        )
        resampled.append(results)

    untested = []
    predictions = [side.predictions for side in evaluated]
    for side, preds in zip(sides, predictions, strict=True):
        for found in preds:
            warnings += found.warnings
        dependent = check_seeds(side, preds)
        warnings += dependent
        untested.append(
            f'the runs of {side.name} are not trainings of one config with '
            'several seeds, see the warnings'
            if dependent
            else ''
        )
    matches = evaluated[0].matches[0]
    with_objects = truth.image_ids[matches.objects[:, :, 0].any(1)]
    warnings += check_sides(sides, predictions, with_objects)
    comparisons = [
        compare_resampled(
            resampled[0],
            results,
            level,
            untested=untested[0] or reason,
            groups=group,
        )
        for results, reason in zip(resampled[1:], untested[1:], strict=True)
    ]
    return Report(
        truth=truth,
        iou_type=iou_type,
        sides=tuple(evaluated),
        comparisons=tuple(correct(comparisons)),
        warnings=tuple(dict.fromkeys(warnings)),
        margin=margin,
    )


def _require_numbers(
    resamples: int, level: float, threads: int | None, margin: float | None
) -> None:
    if not 0.5 <= level < 1:
        raise UserError(f'level is {level:g}', 'Give a share such as 0.95.')
    fewest = max(100, math.ceil(2 / (1 - level) - 1e-6))
    if resamples < fewest:
        raise UserError(
            f'resamples is {resamples}',
            f'Give {fewest} or more for level {level:g}.',
        )
    if threads is not None and threads < 1:
        raise UserError(f'threads is {threads}', 'Give 1 or more.')
    if margin is not None and not 0 < margin < 1:
        raise UserError(
            f'margin is {margin:g} ({100 * margin:g} AP points)',
            'Give a loss of AP between 0 and 100 points: 0.5 (in Python '
            '0.005) is half a point.',
        )


def _groups(
    runs: Sequence[Source] | None,
    baseline: Source | Sequence[Source] | None,
    candidates: Sequence[Source | Sequence[Source]] | None,
) -> list[list[Source]]:
    """The sources of each side, the baseline first."""
    if runs and (baseline or candidates):
        raise UserError('give runs, or baseline and candidates, not both')
    entries = [*_listed(runs), *_listed(candidates)]
    if baseline:
        entries.insert(0, baseline)
    if len(entries) < 2:
        raise UserError(
            'a comparison needs a baseline and at least one candidate',
            'Add a candidate.',
        )
    return [_listed(entry) for entry in entries]


def _listed(sources: Source | Sequence | None) -> list:
    if isinstance(sources, Source):
        return [sources]
    return list(sources or ())


def _cost(
    side: Side, cost: bool, latency: bool
) -> tuple[Complexity | None, Sequence[Latency]]:
    """The cost that the test of a side's first run wrote, and its speed."""
    run = side.runs[0]
    speeds: Sequence[Latency] = ()
    if latency and run.config_file is not None:
        from mmext.evaluation.cost.latency import config_latency
        from mmext.utils.config import load_config

        speeds = config_latency(load_config(run.config_file))
    return cost_of(run.model) if cost else None, speeds
