# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The report as one HTML page without scripts and network access.

``page.html`` has the markup, this module the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmext.evaluation.coco.accumulate import METRICS
from mmext.evaluation.coco.diagnosis import (
    KINDS,
    error_types,
    mean_curve,
    most_different,
)
from mmext.evaluation.coco.matching import RECALL_THRESHOLDS
from mmext.evaluation.report.charts import Chart, bars, forest, line_chart
from mmext.evaluation.report.pictures import ImageFolder, picture
from mmext.evaluation.report.render import render
from mmext.evaluation.report.results import EvaluatedSide, Results
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import logged_curves, parse_metrics, validation_unit
from mmext.evaluation.statistics.comparison import Comparison
from mmext.evaluation.statistics.intervals import Estimate

#: Macro of ``charts.html``, its chart, caption, key: (style, name).
Figure = tuple[str, Chart, str, list[tuple[str, str]]]
#: A heading and its figures.
Section = tuple[str, list[Figure]]
_LONGEST_FOREST = 80  # classes


def html_page(
    results: Results,
    verdicts: Sequence[tuple[str, Sequence[str]]],
    tables: Sequence[Table],
    images: ImageFolder,
) -> str:
    """Returns the page; without images, boxes are on empty frames."""
    pictures = _drawn(_galleries(results, images))
    return render(
        Path(__file__).with_name('page.html'),
        title=' / '.join(results.names),
        verdicts=verdicts,
        warnings=[f'Warning: {w}' for w in results.warnings],
        # AP, what was tested, the differences.
        top=tables[:3],
        tables=tables[3:],
        chart_sections=_drawn(_charts(results)),
        picture_sections=pictures,
        problem=images.problem if pictures else '',
    )


def _drawn(sections: Iterator[Section]) -> list[Section]:
    """Leaves out figures of which nothing is drawn."""
    found = []
    for heading, figures in sections:
        drawn = [figure for figure in figures if figure[1]]
        if drawn:
            found.append((heading, drawn))
    return found


def _charts(results: Results) -> Iterator[Section]:
    for i, (side, comparison) in enumerate(results.candidates(), 1):
        yield f'Differences: {side.name}', _forests(i, comparison)
    yield 'Precision and recall', _curves(results.sides)
    yield 'Error types (TIDE, AP50 lost)', [_errors(results)]
    yield 'Training', _training(results)


def _galleries(results: Results, images: ImageFolder) -> Iterator[Section]:
    for i, side in enumerate(results.sides[1:], 1):
        figures = _pictures(results, side, f's{i % 6}', images)
        yield f'Where {side.name} differs most', figures


def _key(sides: Sequence[EvaluatedSide]) -> list[tuple[str, str]]:
    return [(f's{i % 6}', side.name) for i, side in enumerate(sides)]


def _forests(side: int, comparison: Comparison) -> list[Figure]:
    claim = 'of the methods, over seeds and images'
    if not comparison.both:
        claim = 'of these checkpoints, over images (the methods: not tested)'
    grey = 'Grey: the interval contains zero.'
    metrics = [
        (m, *_points(comparison.best_estimate(m)))
        for m in METRICS
        if m in comparison.differences
    ]
    chart = forest(metrics, 'AP or AR points', side)
    caption = f'Difference of every metric with its interval, {claim}. {grey}'
    figures: list[Figure] = [('forest', chart, caption, [])]
    if len(comparison.classes) > 1:
        classes = [
            (c.name, *_points(c.best_estimate)) for c in comparison.classes
        ]
        classes = [row for row in classes if np.isfinite(row[1])]
        classes.sort(key=lambda row: -row[1])
        chart = forest(classes[:_LONGEST_FOREST], 'AP points', side)
        caption = (
            f'Difference in AP of each class, {claim}. {grey} No whisker: too '
            'few images. Not corrected for many classes; see the table.'
        )
        figures.append(('forest', chart, caption, []))
    return figures


def _points(estimate: Estimate) -> tuple[float, float, float]:
    low, high = estimate.interval
    return 100 * estimate.value, 100 * low, 100 * high


def _curves(sides: tuple[EvaluatedSide, ...]) -> list[Figure]:
    recall = RECALL_THRESHOLDS.tolist()
    figures = []
    for t, iou in ((0, '0.50'), (5, '0.75')):
        series = []
        for side in sides:
            precision = mean_curve(side.matches[0], t).tolist()
            points = list(zip(recall, precision, strict=True))
            series.append((side.name, points))
        chart = line_chart(series, 'recall', 'precision', (0.0, 1.0))
        caption = f'IoU {iou}, mean over classes, first seed.'
        figures.append(('line_chart', chart, caption, _key(sides)))
    return figures


def _errors(results: Results) -> Figure:
    sides = []
    for side in results.sides:
        lost = [error_types(results.truth, p) for p in side.predictions]
        means = [100 * float(np.mean([x[k] for x in lost])) for k in lost[0]]
        sides.append((side.name, means))
    chart = bars(list(KINDS.values()), sides, 'AP50 points lost')
    caption = 'Mean over seeds; lower is better.'
    return 'bars', chart, caption, _key(results.sides)


def _training(results: Results) -> list[Figure]:
    losses, values, units = [], [], set()
    for side in results.sides:
        run = side.runs[0]
        loss = logged_curves(run).get('loss', [])
        losses.append((side.name, loss[:: max(1, len(loss) // 300)]))
        found = [
            (record['step'], parse_metrics(record).get(results.iou_type, {}))
            for record in run.val_log
        ]
        ap = [(step, 100 * m['AP']) for step, m in found if 'AP' in m]
        values.append((side.name, ap))
        units.add(validation_unit(run))
    loss = line_chart(losses, 'iteration', 'loss')
    unit = units.pop() if len(units) == 1 else 'step'
    validation = line_chart(values, unit, 'AP points')
    key = _key(results.sides)
    return [
        ('line_chart', loss, 'Training loss, first seed.', key),
        ('line_chart', validation, 'Validation AP, first seed.', key),
    ]


def _pictures(
    results: Results, side: EvaluatedSide, style: str, images: ImageFolder
) -> list[Figure]:
    base = results.sides[0]
    key = [('s0', base.name), (style, side.name), ('truth', 'ground truth')]
    preds = {'s0': base.predictions[0], style: side.predictions[0]}
    figures = []
    for i, gap in most_different(base.matches[0], side.matches[0]):
        image_id = int(results.truth.image_ids[i])
        chart = picture(results.truth, image_id, preds, images.path)
        better = side.name if gap > 0 else base.name
        caption = (
            f'{chart["name"]}: {better} is ahead by {abs(gap)} (objects '
            'found minus false positives, with scores of 0.3 or more).'
        )
        if images.path and not chart['image']:
            caption += f' {images.path} has no such image.'
        figures.append(('picture', chart, caption, key))
    return figures
