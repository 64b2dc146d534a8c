# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A comparison as data for any output: tables, verdicts, costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matches import AREAS, Matches
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import Predictions, read_predictions
from mmext.evaluation.coco.summary import METRICS
from mmext.evaluation.cost.complexity import Complexity
from mmext.evaluation.cost.latency import Latency
from mmext.evaluation.report.logged import cost_notes
from mmext.evaluation.report.published import detector_name, published_table
from mmext.evaluation.report.table import Table
from mmext.evaluation.sides import Side
from mmext.evaluation.statistics.comparison import (
    Comparison,
    ImageBootstrap,
    compare,
)
from mmext.evaluation.statistics.intervals import METHODS
from mmext.evaluation.statistics.verdict import interval, points, verdict
from mmext.utils.text import duration


@dataclass(frozen=True)
class Evaluated:
    """A side with its predictions read and matched, one a seed."""

    side: Side
    predictions: tuple[Predictions, ...]
    matches: tuple[Matches, ...]


@dataclass(frozen=True)
class Report:
    """All that an output shows.

    Args:
        truth: Ground truth.
        iou_type: ``'bbox'`` or ``'segm'``.
        sides: The baseline, then the candidates.
        comparisons: One a candidate.
        costs: One a side, None where unknown.
        latencies: One a side, empty where not measured.
        warnings: About the inputs.
    """

    truth: GroundTruth
    iou_type: str
    sides: tuple[Evaluated, ...]
    comparisons: tuple[Comparison, ...]
    costs: Sequence[Complexity | None] = ()
    latencies: Sequence[Sequence[Latency]] = ()
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def names(self) -> list[str]:
        """What the sides are called, the baseline first."""
        return [side.side.name for side in self.sides]

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """(candidate against baseline, sentences), one a candidate."""
        return [
            (f'{name} against {self.names[0]}', verdict(comparison))
            for name, comparison in zip(
                self.names[1:], self.comparisons, strict=True
            )
        ]

    def details(self) -> list[Table]:
        """Tables too wide for a terminal."""
        count = len(self.comparisons)
        return [interval_table(self, i) for i in range(count)]

    def tables(self) -> list[Table]:
        """The tables to read, the most wanted first."""
        found = [summary_table(self)]
        found += [metric_table(self, i) for i in range(len(self.comparisons))]
        if len(self.truth.names) > 1:
            found += [
                class_table(self, i) for i in range(len(self.comparisons))
            ]
        found.append(cost_table(self))
        config = self.sides[0].side.runs[0].config
        if config and 'model' in config:
            published = published_table(
                detector_name(config),
                self.sides[0].side.runs[0].backbone,
                self.iou_type,
            )
            found += [published] if published else []
        return found


def evaluate(
    sides: Sequence[Side],
    truth: GroundTruth,
    iou_type: str,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    areas: tuple[str, ...] = tuple(AREAS),
    threads: int = 2,
    progress: Callable[[str, float], None] = lambda what, share: None,
    **extras: object,
) -> Report:
    """Reads, matches, resamples and compares.

    Args:
        sides: The baseline, then the candidates.
        truth: Ground truth.
        iou_type: ``'bbox'`` or ``'segm'``.
        resamples: Bootstrap resamples. Default: 1000.
        level: Of the intervals. Default: 0.95.
        seed: Of the resampling. Default: 0.
        areas: Area ranges wanted, ``'all'`` first. Default: COCO's four.
        threads: Default: 2.
        progress: Called with what is done and its share in 0..1.
        extras: ``costs`` and ``latencies`` of the report.
    """
    evaluated, resampled, warnings = [], [], [*truth.warnings]
    bootstrap = ImageBootstrap(len(truth.image_ids), resamples, seed)
    total = sum(len(side.runs) for side in sides)
    done = 0
    for side in sides:
        preds, matches, metrics = [], [], []
        for path in side.predictions(iou_type):
            what = f'{side.name} ({done + 1} of {total})'
            progress(f'{what}: reading', done / total)
            preds.append(read_predictions(path, truth, iou_type))
            warnings += preds[-1].warnings
            progress(f'{what}: matching', (done + 0.1) / total)
            matches.append(match(truth, preds[-1], areas))

            def tell(share: float, what=what, done=done) -> None:
                progress(
                    f'{what}: resampling', (done + 0.3 + 0.7 * share) / total
                )

            metrics.append(bootstrap.evaluate(matches[-1], tell, threads))
            done += 1
        warnings += _same_detections(preds)
        evaluated.append(Evaluated(side, tuple(preds), tuple(matches)))
        resampled.append(metrics)
    first = evaluated[0].matches[0]
    return Report(
        truth=truth,
        iou_type=iou_type,
        sides=tuple(evaluated),
        comparisons=tuple(
            compare(first, resampled[0], candidate, level, seed)
            for candidate in resampled[1:]
        ),
        warnings=tuple(dict.fromkeys(warnings)),
        **extras,
    )


def _same_detections(preds: Sequence[Predictions]) -> list[str]:
    """Runs of a side that are one and the same, told as warnings."""
    seen: dict[tuple[bytes, bytes], Predictions] = {}
    found = []
    for run in preds:
        key = (run.image_id.tobytes(), run.score.tobytes())
        first = seen.setdefault(key, run)
        if len(run) and first is not run:
            found.append(
                f'{first.path} and {run.path} hold the same detections: one '
                'seed counts as two, and the spread between seeds is too '
                'small.'
            )
    return found


def summary_table(report: Report) -> Table:
    """One row a side, one column a metric, and the difference in AP."""
    names = [m for m in METRICS[:6] if m in report.comparisons[0].baseline]
    level = report.comparisons[0].differences['AP'].level
    header = ['model', 'seeds', *names, f'delta AP [{100 * level:g} %]', 'p']
    first = report.comparisons[0].baseline
    rows = [_summary_row(report.names[0], first, names, '-', '-')]
    for name, comparison in zip(
        report.names[1:], report.comparisons, strict=True
    ):
        found = comparison.both.get('AP') or comparison.differences['AP']
        rows.append(
            _summary_row(
                name,
                comparison.candidate,
                names,
                interval(found),
                _p(found.p),
            )
        )
    notes = [
        f'{len(report.truth.image_ids)} images, '
        f'{report.comparisons[0].resamples} resamples, IoU type '
        f'{report.iou_type}. Several seeds: mean ± standard deviation.'
    ]
    return Table(header, rows, 'AP', notes)


def metric_table(report: Report, index: int) -> Table:
    """One row a metric: both sides, the difference, what is shown."""
    comparison = report.comparisons[index]
    name = report.names[index + 1]
    header = ['metric', report.names[0], name, 'delta', 'over images', 'p']
    if comparison.both:
        header += ['over seeds too', 'p']
    rows = []
    for metric in (m for m in METRICS if m in comparison.differences):
        found = comparison.differences[metric]
        row = [
            metric,
            _mean_sd(comparison.baseline[metric]),
            _mean_sd(comparison.candidate[metric]),
            points(found.value),
            _range(found.interval),
            _p(found.p),
        ]
        if comparison.both:
            both = comparison.both[metric]
            row += [_range(both.interval), _p(both.p)]
        rows.append(row)
    return Table(header, rows, f'{name} against {report.names[0]}')


def interval_table(report: Report, index: int) -> Table:
    """One row a metric, IoU thresholds too: every interval there is."""
    comparison = report.comparisons[index]
    header = ['metric', 'delta', 'SE', 'interval', 'percentile', 'BCa', 'p']
    if comparison.seeds:
        header += ['between seeds', 'p seeds', 'seeds and images', 'p both']
    rows = []
    for metric, found in comparison.differences.items():
        row = [
            *(metric, points(found.value), points(found.se, sign=False)),
            *(_range(found.intervals[m]) for m in METHODS),
            _p(found.p),
        ]
        if comparison.seeds:
            seeds, both = comparison.seeds[metric], comparison.both[metric]
            row += [_range(seeds.interval), _p(seeds.p)]
            row += [_range(both.interval), _p(both.p)]
        rows.append(row)
    notes = ['interval, percentile, BCa, p: over images alone.']
    if comparison.seeds:
        notes.append('between seeds: Welch.')
    title = f'Intervals: {report.names[index + 1]}'
    return Table(header, rows, title, notes)


def class_table(report: Report, index: int) -> Table:
    """One row a class, the largest gain first."""
    classes = sorted(
        report.comparisons[index].classes,
        key=lambda c: -np.nan_to_num(c.difference.value, nan=-np.inf),
    )
    rows = [
        [
            c.name,
            str(c.images),
            points(c.baseline, sign=False),
            points(c.candidate, sign=False),
            points(c.difference.value),
            _range(c.difference.interval),
            _p(c.difference.p),
            _p(c.holm),
        ]
        for c in classes
    ]
    header = ['class', 'images', report.names[0], report.names[index + 1]]
    header += ['delta', 'interval', 'p', 'p Holm']
    title = f'AP by class: {report.names[index + 1]}'
    return Table(header, rows, title)


def cost_table(report: Report) -> Table:
    """Parameters, FLOPs, training time, and speed where measured."""
    latencies = report.latencies or [()] * len(report.sides)
    costs = report.costs or [None] * len(report.sides)
    batches = sorted({x.batch for side in latencies for x in side})
    header = ['model', 'params', 'FLOPs', 'train time']
    for batch in batches:
        header += [f'latency b{batch}', f'images/s b{batch}']
    header += ['peak memory'] if batches else []
    rows, notes = [], []
    for side, cost, speeds in zip(report.sides, costs, latencies, strict=True):
        times = [r.train_seconds for r in side.side.runs if r.train_seconds]
        row = [
            side.side.name,
            f'{cost.params / 1e6:.2f} M' if cost else '-',
            f'{cost.flops / 1e9:.2f} G' if cost and cost.flops else '-',
            duration(sum(times) / len(times) if times else None),
        ]
        by_batch = {x.batch: x for x in speeds}
        for batch in batches:
            speed = by_batch.get(batch)
            row += [
                f'{1e3 * speed.seconds:.1f} ms' if speed else '-',
                f'{speed.images_per_second:.1f}' if speed else '-',
            ]
        if batches:
            peak = max((x.peak_bytes or 0 for x in speeds), default=0)
            row.append(f'{peak / 2**20:.0f} MiB' if peak else '-')
        rows.append(row)
        if cost and cost.note:
            notes.append(f'{side.side.name}: no FLOPs ({cost.note}).')
    notes += cost_notes(costs)
    notes += sorted({x.device for side in latencies for x in side})
    return Table(header, rows, 'Cost', notes)


def _summary_row(name, values, metrics, delta, p) -> list[str]:
    count = str(len(values['AP']))
    return [name, count, *(_mean_sd(values[m]) for m in metrics), delta, p]


def _mean_sd(values: np.ndarray) -> str:
    text = points(float(np.mean(values)), sign=False)
    if len(values) > 1 and text != 'n/a':
        text += f' ± {100 * float(np.std(values, ddof=1)):.1f}'
    return text


def _range(ends: tuple[float, float]) -> str:
    if not np.isfinite(ends).all():
        return 'n/a'
    return f'[{points(ends[0])}, {points(ends[1])}]'


def _p(p: float) -> str:
    if not np.isfinite(p):
        return 'n/a'
    return f'{p:.3f}' if p >= 0.001 else '<0.001'
