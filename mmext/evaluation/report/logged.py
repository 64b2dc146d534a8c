# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The table of runs beside each other; the first is the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmext.errors import UserError
from mmext.evaluation.cost.complexity import Complexity, config_complexity
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import METRIC_NAMES, Run
from mmext.utils.text import duration


def comparison_table(
    runs: Sequence[Run],
    iou_type: str | None = None,
    costs: Sequence[Complexity | None] | None = None,
) -> Table:
    """``backbone | AP ... | delta | params | FLOPs | train time``.

    Args:
        runs: The baseline, then the candidates.
        iou_type: ``'bbox'`` or ``'segm'``. Default: the first that every run
            has.
        costs: One a run, see :func:`run_costs`. Default: counted here.

    Raises:
        UserError: A run has no metrics of ``iou_type``.
    """
    iou_type = iou_type or _common_iou_type(runs)
    costs = run_costs(runs) if costs is None else costs
    labels = run_labels(runs)
    rows, notes = [], []
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
        delta = '-' if base is None else _points(ap - base, sign=True)
        base = ap if base is None else base
        rows.append(
            [
                label,
                *(_points(metrics.get(m)) for m in METRIC_NAMES.values()),
                delta,
                _scaled(cost and cost.params, 1e6, 'M'),
                _scaled(cost and cost.flops, 1e9, 'G'),
                duration(run.train_seconds),
            ]
        )
        if cost and cost.note:
            notes.append(f'{label}: FLOPs not counted ({cost.note})')
    header = ['backbone', *METRIC_NAMES.values(), 'delta', 'params']
    notes += cost_notes(costs)
    return Table([*header, 'FLOPs', 'train time'], rows, iou_type, notes)


def run_costs(runs: Sequence[Run]) -> list[Complexity | None]:
    """Parameters and FLOPs of each run's config, None where it has none."""
    return [config_complexity(r.config) if r.config else None for r in runs]


def run_labels(runs: Sequence[Run]) -> list[str]:
    """The backbones in words, with the run's name where two are alike."""
    words = [run.backbone for run in runs]
    labels = []
    for word, run in zip(words, runs, strict=True):
        if word == '?':
            labels.append(run.name)
        elif words.count(word) == 1:
            labels.append(word)
        else:
            labels.append(f'{word} ({run.name})')
    return labels


def _common_iou_type(runs: Sequence[Run]) -> str:
    for iou_type in ('bbox', 'segm'):
        if all(iou_type in run.metrics for run in runs):
            return iou_type
    have = '; '.join(
        f'{r.path}: {", ".join(r.metrics) or "no metrics"}' for r in runs
    )
    raise UserError(
        f'the runs have no metric in common ({have})',
        'A run has metrics after its first validation or tools/test.py.',
    )


def _points(value: float | None, sign: bool = False) -> str:
    if value is None or math.isnan(value):
        return '-'
    return f'{100 * value:+.1f}' if sign else f'{100 * value:.1f}'


def _scaled(value: float | None, unit: float, suffix: str) -> str:
    return '-' if value is None else f'{value / unit:.2f} {suffix}'


def cost_notes(costs: Sequence[Complexity | None]) -> list[str]:
    """What FLOPs mean here, and which operators they leave out."""
    shapes = {c.shape for c in costs if c and c.flops}
    names = sorted({n for c in costs if c and c.flops for n in c.uncounted})
    notes = [
        f'FLOPs: multiply-adds of one {h}x{w} image (height x width).'
        for h, w in sorted(shapes)
    ]
    if names:
        notes.append('Not counted in FLOPs: ' + ', '.join(names) + '.')
    return notes
