# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The table of logged metrics of several runs; the first is the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmext.errors import UserError
from mmext.evaluation.report.table import Table
from mmext.evaluation.report.tables import cost_cells, cost_notes
from mmext.evaluation.runs import METRIC_NAMES, Run, common_iou_type
from mmext.utils.text import duration, points

if TYPE_CHECKING:
    from mmext.evaluation.cost.complexity import Complexity


def logged_table(
    runs: Sequence[Run],
    iou_type: str | None = None,
    costs: Sequence[Complexity | None] | None = None,
) -> Table:
    """Returns ``backbone | AP ... | delta | params | FLOPs | train time``.

    Args:
        runs: The baseline, then the candidates.
        iou_type: ``'bbox'`` or ``'segm'``. Default: the first that every run
            has metrics of.
        costs: One a run, see :func:`run_costs`. Default: not shown.

    Raises:
        UserError: A run has no metrics of ``iou_type``.
    """
    iou_type = iou_type or common_iou_type(
        [(run.path, run.metrics) for run in runs],
        'metrics',
        'A run has metrics after its first validation or tools/test.py.',
    )
    costs = [None] * len(runs) if costs is None else costs
    labels = run_labels(runs)
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
        values = [metrics.get(m) for m in METRIC_NAMES.values()]
        rows.append(
            [
                label,
                *(points(v, sign=False, missing='-') for v in values),
                points(delta, missing='-'),
                *cost_cells(cost),
                duration(run.train_seconds),
            ]
        )
    header = ['backbone', *METRIC_NAMES.values(), 'delta', 'params', 'FLOPs']
    notes = cost_notes(dict(zip(labels, costs, strict=True)))
    return Table([*header, 'train time'], rows, iou_type, notes)


def run_costs(runs: Sequence[Run]) -> list[Complexity | None]:
    """Counts parameters and FLOPs of each run; None without a config."""
    from mmext.evaluation.cost.complexity import config_complexity

    return [config_complexity(r.config) if r.config else None for r in runs]


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Returns the backbones in words, with the run's name if two are equal."""
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
