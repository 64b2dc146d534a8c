# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The tables of a report, and the table of logged metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import AP_METRICS, METRICS
from mmext.evaluation.report.results import EvaluatedSide, Results
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import METRIC_NAMES, Run, common_iou_type
from mmext.evaluation.statistics.comparison import Comparison
from mmext.evaluation.statistics.intervals import METHODS, Estimate
from mmext.evaluation.statistics.verdict import interval
from mmext.utils.text import duration, p_value, points, points_range

if TYPE_CHECKING:
    from mmext.evaluation.cost.complexity import Complexity


def summary_table(results: Results) -> Table:
    """Returns one row a side: AP, the difference in AP, and its p-value."""
    first = results.comparisons[0]
    metrics = [m for m in AP_METRICS if m in first.baseline]
    level = first.differences['AP'].level
    header = ['model', 'seeds', *metrics, f'delta AP [{100 * level:g} %]', 'p']

    def cells(name: str, values: dict[str, np.ndarray]) -> list[str]:
        means = [_mean_sd(values[m]) for m in metrics]
        return [name, str(len(values['AP'])), *means]

    rows = [[*cells(results.names[0], first.baseline), '-', '-']]
    for side, comparison in results.candidates():
        found = comparison.best_estimate('AP')
        row = cells(side.name, comparison.candidate)
        row += [interval(found.value, found.interval), p_value(found.p)]
        rows.append(row)
    note = (
        f'{first.images} images, {first.resamples} resamples, IoU type '
        f'{results.iou_type}. Several seeds: mean ± standard deviation.'
    )
    return Table(header, rows, 'AP', [note])


def metric_table(base: str, name: str, comparison: Comparison) -> Table:
    """Returns one row a metric: both sides, by name, and the difference."""
    header = ['metric', base, name, 'delta', 'over images', 'p']
    if comparison.both:
        header += ['over seeds too', 'p']
    rows = []
    for metric in METRICS:
        if metric not in comparison.differences:
            continue
        found = comparison.differences[metric]
        row = [
            metric,
            _mean_sd(comparison.baseline[metric]),
            _mean_sd(comparison.candidate[metric]),
            points(found.value),
            *_interval_and_p(found),
        ]
        if comparison.both:
            row += _interval_and_p(comparison.both[metric])
        rows.append(row)
    return Table(header, rows, f'{name} against {base}')


def class_table(base: str, name: str, comparison: Comparison) -> Table:
    """Returns one row a class, the largest gain first."""
    classes = sorted(
        comparison.classes,
        key=lambda c: -np.nan_to_num(c.difference.value, nan=-np.inf),
    )
    rows = [
        [
            c.name,
            str(c.images),
            points(c.baseline, sign=False),
            points(c.candidate, sign=False),
            points(c.difference.value),
            *_interval_and_p(c.difference),
            p_value(c.holm),
        ]
        for c in classes
    ]
    header = ['class', 'images', base, name, 'delta', 'interval', 'p']
    return Table([*header, 'p Holm'], rows, f'AP by class: {name}')


def interval_table(name: str, comparison: Comparison) -> Table:
    """Returns one row a metric or IoU threshold, with every interval."""
    header = ['metric', 'delta', 'SE', 'interval', 'percentile', 'BCa', 'p']
    notes = ['interval, percentile, BCa, p: over images alone.']
    if comparison.seeds:
        header += ['between seeds', 'p seeds', 'seeds and images', 'p both']
        notes.append('between seeds: Welch.')
    rows = []
    for metric, found in comparison.differences.items():
        row = [metric, points(found.value), points(found.se, sign=False)]
        row += [points_range(found.intervals[m]) for m in METHODS]
        row.append(p_value(found.p))
        if comparison.seeds:
            row += _interval_and_p(comparison.seeds[metric])
            row += _interval_and_p(comparison.both[metric])
        rows.append(row)
    return Table(header, rows, f'Intervals: {name}', notes)


def cost_table(sides: Sequence[EvaluatedSide]) -> Table:
    """Returns parameters, FLOPs, training time, and speed if measured."""
    batches = sorted({x.batch for side in sides for x in side.latencies})
    header = ['model', 'params', 'FLOPs', 'train time']
    for batch in batches:
        header += [f'latency b{batch}', f'images/s b{batch}']
    if batches:
        header.append('peak memory')
    rows = []
    for side in sides:
        times = [r.train_seconds for r in side.runs if r.train_seconds]
        mean = sum(times) / len(times) if times else None
        row = [side.name, *cost_cells(side.cost), duration(mean)]
        speeds = {x.batch: x for x in side.latencies}
        for batch in batches:
            speed = speeds.get(batch)
            row += [
                f'{1e3 * speed.seconds:.1f} ms' if speed else '-',
                f'{speed.images_per_second:.1f}' if speed else '-',
            ]
        if batches:
            peak = max((x.peak_bytes or 0 for x in side.latencies), default=0)
            row.append(f'{peak / 2**20:.0f} MiB' if peak else '-')
        rows.append(row)
    notes = cost_notes({side.name: side.cost for side in sides})
    notes += sorted({x.device for side in sides for x in side.latencies})
    return Table(header, rows, 'Cost', notes)


def cost_cells(cost: Complexity | None) -> list[str]:
    """Returns the cells for parameters and FLOPs."""
    return [
        f'{cost.params / 1e6:.2f} M' if cost else '-',
        f'{cost.flops / 1e9:.2f} G' if cost and cost.flops else '-',
    ]


def cost_notes(costs: dict[str, Complexity | None]) -> list[str]:
    """Returns what the FLOPs are of, and what they do not include."""
    notes = [
        f'{name}: FLOPs not counted ({cost.note}).'
        for name, cost in costs.items()
        if cost and cost.note
    ]
    counted = [cost for cost in costs.values() if cost and cost.flops]
    notes += [
        f'FLOPs: multiply-adds of one {h}x{w} image (height x width).'
        for h, w in sorted({cost.shape for cost in counted})
    ]
    names = sorted({name for cost in counted for name in cost.uncounted})
    if names:
        notes.append(f'Not counted in FLOPs: {", ".join(names)}.')
    return notes


def logged_table(
    runs: Sequence[Run],
    iou_type: str | None = None,
    costs: Sequence[Complexity | None] | None = None,
) -> Table:
    """Returns the logged metrics of several runs, the baseline first.

    Default of ``iou_type``: the first that every run has metrics of.
    """
    iou_type = iou_type or common_iou_type(
        [(run.path, run.metrics) for run in runs],
        'metrics',
        'A run has metrics after its first validation or tools/test.py.',
    )
    costs = [None] * len(runs) if costs is None else costs
    labels = run_labels(runs)
    names = METRIC_NAMES.values()
    rows = []
    base = None
    for run, cost, label in zip(runs, costs, labels, strict=True):
        metrics = run.metrics.get(iou_type)
        if metrics is None:
            raise UserError(
                f'{run.path} has no {iou_type} metrics (it has: '
                f'{", ".join(run.metrics) or "none"})',
                'Was it validated? Run tools/test.py on its checkpoint.',
            )
        ap = metrics.get('AP', math.nan)
        delta = None if base is None else ap - base
        base = ap if base is None else base
        rows.append(
            [
                label,
                *(points(metrics.get(m), False, missing='-') for m in names),
                points(delta, missing='-'),
                *cost_cells(cost),
                duration(run.train_seconds),
            ]
        )
    header = ['backbone', *names, 'delta', 'params', 'FLOPs']
    notes = cost_notes(dict(zip(labels, costs, strict=True)))
    return Table([*header, 'train time'], rows, iou_type, notes)


def run_costs(runs: Sequence[Run]) -> list[Complexity | None]:
    """Counts parameters and FLOPs of each run; None without a config."""
    from mmext.evaluation.cost.complexity import config_complexity

    return [config_complexity(r.config) if r.config else None for r in runs]


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Returns the backbones in words, with the run's name if two are equal."""
    words = [run.name if run.backbone == '?' else run.backbone for run in runs]
    return [
        word if words.count(word) == 1 else f'{word} ({run.name})'
        for word, run in zip(words, runs, strict=True)
    ]


def _interval_and_p(test: Estimate) -> list[str]:
    return [points_range(test.interval), p_value(test.p)]


def _mean_sd(values: np.ndarray) -> str:
    text = points(float(np.mean(values)), sign=False)
    if len(values) > 1 and text != 'n/a':
        text += f' ± {points(float(np.std(values, ddof=1)), sign=False)}'
    return text
