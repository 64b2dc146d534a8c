# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.compare`: detectors on the same images, with intervals."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmext.errors import UserError
from mmext.evaluation.coco.matching import AREAS, Matches, match
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.report.report import Report
from mmext.evaluation.report.results import EvaluatedSide
from mmext.evaluation.sides import (
    Side,
    Source,
    find_ground_truth,
    predicted_iou_type,
    read_sides,
)
from mmext.evaluation.statistics.comparison import (
    ImageBootstrap,
    Resampled,
    compare_resampled,
)

if TYPE_CHECKING:
    from mmext.evaluation.cost.complexity import Complexity
    from mmext.evaluation.cost.latency import Latency


def compare(
    runs: Sequence[Source] | None = None,
    *,
    baseline: Source | Sequence[Source] | None = None,
    candidates: Sequence[Source | Sequence[Source]] | None = None,
    ann: str | Path | None = None,
    iou_type: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    quick: bool = False,
    threads: int | None = None,
    cost: bool = True,
    latency: bool = False,
    which: str = 'last',
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
        iou_type: ``'bbox'`` or ``'segm'``. Default: the first that every run
            has predictions of.
        resamples: Number of bootstrap resamples, at least 100 and at least
            2 / (1 - level). Default: 1000.
        level: Coverage of the intervals, from 0.5 to below 1. Default: 0.95.
        seed: Seed of the resampling. Default: 0.
        quick: Do not compute AP and AR by object size. Default: False.
        threads: Number of threads. Default: one a CPU, at most 2.
        cost: Count parameters and FLOPs of sides with a config. Default:
            True.
        latency: Measure the speed of sides with a config, at batch sizes 1
            and 16. Default: False.
        which: Show the training of work folders up to the ``'last'``
            validation or the ``'best'`` one. Default: ``'last'``.
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
    _require_numbers(resamples, level, threads)
    sides = read_sides(_groups(runs, baseline, candidates), which)
    iou_type = iou_type or predicted_iou_type(sides)
    truth = find_ground_truth(sides, iou_type, ann)
    areas = ('all',) if quick else tuple(AREAS)
    threads = threads or min(2, os.cpu_count() or 1)
    bootstrap = ImageBootstrap(len(truth.image_ids), resamples, seed)

    # Before the long part: a model that cannot be built raises an error.
    costs = [_cost(side, cost, latency) for side in sides]
    evaluated: list[EvaluatedSide] = []
    resampled: list[Sequence[Resampled]] = []
    warnings = [*truth.warnings]
    total = sum(len(side.runs) for side in sides)
    runs_before = itertools.count()

    def evaluate(
        side: Side, path: Path
    ) -> tuple[Predictions, Matches, Resampled]:
        before = next(runs_before)

        def report(step: str, share: float) -> None:
            if progress is not None:
                what = f'{side.name} ({before + 1} of {total}): {step}'
                progress(what, (before + share) / total)

        report('reading', 0.0)
        preds = read_predictions(path, truth, iou_type)
        report('matching', 0.1)
        matches = match(truth, preds, areas)
        results = bootstrap.evaluate(
            matches, lambda x: report('resampling', 0.3 + 0.7 * x), threads
        )
        return preds, matches, results

    for side, side_cost in zip(sides, costs, strict=True):
        found = [evaluate(side, path) for path in side.predictions(iou_type)]
        all_preds, all_matches, all_results = zip(*found, strict=True)
        warnings += [w for preds in all_preds for w in preds.warnings]
        warnings += _same_detections(all_preds)
        evaluated.append(
            EvaluatedSide(
                side.name, side.runs, all_preds, all_matches, *side_cost
            )
        )
        resampled.append(all_results)
    return Report(
        truth=truth,
        iou_type=iou_type,
        sides=tuple(evaluated),
        comparisons=tuple(
            compare_resampled(
                evaluated[0].matches[0], resampled[0], results, level, seed
            )
            for results in resampled[1:]
        ),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _require_numbers(
    resamples: int, level: float, threads: int | None
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
    """Measures the model of a side, if its first run has a config."""
    config = side.runs[0].config if cost or latency else None
    if config is None:
        return None, ()
    from mmext.evaluation.cost.complexity import config_complexity
    from mmext.evaluation.cost.latency import config_latency

    return (
        config_complexity(config) if cost else None,
        config_latency(config) if latency else (),
    )


def _same_detections(preds: Sequence[Predictions]) -> list[str]:
    """A warning for every run of a side that repeats another one."""
    first: dict[tuple[bytes, bytes], Predictions] = {}
    found = []
    for run in preds:
        key = (run.image_id.tobytes(), run.score.tobytes())
        other = first.setdefault(key, run)
        if len(run) and other is not run:
            found.append(
                f'{other.path} and {run.path} hold the same detections: one '
                'seed counts as two, and the spread between seeds is too '
                'small.'
            )
    return found
