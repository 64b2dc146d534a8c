# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The tables of a report, and the table of logged metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.coco.accumulate import AP_METRICS, IOU_METRICS
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.report.results import EvaluatedSide, Results
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import (
    METRIC_NAMES,
    Run,
    common_iou_type,
    other_metrics,
)
from mmext.evaluation.statistics.comparison import Comparison
from mmext.evaluation.statistics.intervals import METHODS, Estimate
from mmext.evaluation.tested import SETTINGS, checkpoint_name, settings
from mmext.utils.text import duration, p_value, points, points_range, some

if TYPE_CHECKING:
    from mmext.evaluation.tested import Complexity

#: The metric that decides -> the value of a class.
CLASS_METRICS = {'AP': 'AP', 'mIoU': 'IoU', 'top-1': 'Recall'}


def summary_table(results: Results) -> Table:
    """Returns one row a side: AP in all its forms."""
    first = results.comparisons[0]
    metrics = [m for m in AP_METRICS if m in first.baseline]
    values = [first.baseline, *(c.candidate for c in results.comparisons)]
    rows = [
        [
            name,
            str(len(found[first.primary])),
            *(_mean_sd(found[m]) for m in metrics),
        ]
        for name, found in zip(results.names, values, strict=True)
    ]
    note = (
        f'{first.images} images, IoU type {results.iou_type}. Several seeds: '
        'mean ± standard deviation.'
    )
    return Table(['model', 'seeds', *metrics], rows, 'AP', [note])


def tested_table(sides: Sequence[EvaluatedSide]) -> Table:
    """Returns one row a run: which checkpoint was tested, and how."""
    tests = []
    for side in sides:
        for preds in side.predictions:
            meta = read_meta(preds.path)
            checkpoint = checkpoint_name(meta) or '?'
            row = [side.name, checkpoint, preds.path.name]
            tests.append((row, settings(meta)))
    shown = [x for x in SETTINGS.values() if any(x in s for _, s in tests)]
    rows = [[*row, *(s.get(x, '?') for x in shown)] for row, s in tests]
    header = ['model', 'checkpoint', 'file', *shown]
    return Table(header, rows, 'What was tested')


def claims_table(results: Results) -> Table:
    """Returns one row a candidate: what was shown of checkpoints, methods."""
    first = results.comparisons[0]
    level = _level(first)
    header = ['model', 'delta AP', f'checkpoints {level}', 'p']
    header += [f'methods {level}', 'p']
    rows = []
    for side, comparison in results.candidates():
        found = comparison.differences[first.primary]
        methods = comparison.both.get(first.primary)
        row = [side.name, points(found.value), *_interval_and_p(found)]
        row += _interval_and_p(methods) if methods else ['not tested', '-']
        rows.append(row)
    notes = [
        'checkpoints: those that were tested, on images like these '
        f'({first.resamples} resamples).',
        'methods: over new trainings too.',
    ]
    if first.candidates > 1:
        notes.append(
            f"p: after Holm's correction for {first.candidates} candidates."
        )
    title = f'Difference to {results.names[0]}'
    return Table(header, rows, title, notes)


def metric_table(base: str, name: str, comparison: Comparison) -> Table:
    """Returns one row a metric: both sides, by name, and the difference."""
    header = ['metric', base, name, 'delta', 'checkpoints', 'p']
    if comparison.both:
        header += ['methods', 'p']
    rows = []
    for metric, found in comparison.differences.items():
        if metric in IOU_METRICS:
            continue
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
    notes = [
        f'Intervals: {_level(comparison)}.',
        f"{comparison.primary} decides. p of the others: after Holm's "
        'correction for all of them.',
    ]
    return Table(header, rows, f'{name} against {base}', notes)


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
            points_range(c.best_estimate.interval),
            p_value(c.best_estimate.p),
            p_value(c.holm),
        ]
        for c in classes
    ]
    what = 'methods' if comparison.both else 'checkpoints'
    drawn = 'images' if comparison.groups is None else 'groups'
    header = ['class', drawn, base, name, 'delta', what, 'p', 'p Holm']
    value = CLASS_METRICS[comparison.primary]
    notes = [f'Intervals: {_level(comparison)}.']
    return Table(header, rows, f'{value} by class: {name}', notes)


def interval_table(name: str, comparison: Comparison) -> Table:
    """Returns one row a metric or IoU threshold, with every interval."""
    header = ['metric', 'delta', 'SE', 'interval', 'percentile', 'BCa', 'p']
    notes = [
        f'Intervals: {_level(comparison)}.',
        'interval, percentile, BCa, p: of these checkpoints, over images. No '
        'p is corrected.',
    ]
    if comparison.seeds:
        header += ['between seeds', 'p seeds']
        notes.append('between seeds: Welch.')
    if comparison.both:
        header += ['methods', 'p methods']
        notes.append('methods: over seeds and images.')
    rows = []
    for metric, found in comparison.differences.items():
        row = [metric, points(found.value), points(found.se, sign=False)]
        row += [points_range(found.intervals[m]) for m in METHODS]
        row.append(p_value(found.p))
        for estimates in (comparison.seeds, comparison.both):
            if estimates:
                other = estimates[metric]
                row += [points_range(other.interval), p_value(other.p)]
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
        notes.append(uncounted_note(names))
    return notes


def uncounted_note(names: Sequence[str]) -> str:
    """Returns one line on operators that are not counted.

    Kernels of libraries are first, since they may be expensive.
    """
    order = sorted(names, key=lambda name: '.' not in name)
    for shown in range(len(order), 0, -1):
        text = f'Not counted in FLOPs: {some(order, shown)}.'
        if len(text) <= 79:
            break
    return text


def logged_table(
    runs: Sequence[Run],
    iou_type: str | None = None,
    costs: Sequence[Complexity | None] | None = None,
) -> Table:
    """Returns the logged metrics of several runs, the baseline first.

    Default of ``iou_type``: the first that every run has metrics of. Without
    COCO metrics, those of segmentation and others are shown as logged.
    """
    if iou_type is None and not any(run.metrics for run in runs):
        others = _other_metrics_table(runs)
        if others:
            return others
    iou_type = iou_type or common_iou_type(
        [(run.path, run.metrics) for run in runs],
        'metrics',
        'A run has metrics after its first validation or mmext test.',
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
                'Was it validated? Run mmext test on its checkpoint.',
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


def _other_metrics_table(runs: Sequence[Run]) -> Table | None:
    """The last logged metrics that are not COCO's and that all runs have."""
    logs = [run.val_log[-1] if run.val_log else {} for run in runs]
    found = [other_metrics(record) for record in logs]
    names = [name for name in found[0] if all(name in f for f in found)]
    if not names:
        return None
    rows = []
    for label, run, values in zip(run_labels(runs), runs, found, strict=True):
        cells = [f'{values[name]:.2f}' for name in names]
        rows.append([label, *cells, duration(run.train_seconds)])
    return Table(['backbone', *names, 'train time'], rows, 'last validation')


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Returns the backbones in words, with the run's name if two are equal."""
    words = [run.name if run.backbone == '?' else run.backbone for run in runs]
    return [
        word if words.count(word) == 1 else f'{word} ({run.name})'
        for word, run in zip(words, runs, strict=True)
    ]


def _level(comparison: Comparison) -> str:
    """The coverage of the intervals: at a look of a plan, not 95 %."""
    return f'{100 * comparison.differences[comparison.primary].level:.4g} %'


def _interval_and_p(test: Estimate) -> list[str]:
    return [points_range(test.interval), p_value(test.holm)]


def _mean_sd(values: np.ndarray) -> str:
    text = points(float(np.mean(values)), sign=False)
    if len(values) > 1 and text != 'n/a':
        text += f' ± {points(float(np.std(values, ddof=1)), sign=False)}'
    return text
