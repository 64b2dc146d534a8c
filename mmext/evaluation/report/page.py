# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A report as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from mmext.evaluation.coco.error_types import KINDS, error_types
from mmext.evaluation.coco.matches import RECALL_THRESHOLDS
from mmext.evaluation.coco.precision_recall import mean_curve, most_different
from mmext.evaluation.coco.summary import METRICS
from mmext.evaluation.report.content import Report
from mmext.evaluation.report.pictures import image_folder, picture
from mmext.evaluation.report.svg import SERIES, bars, forest, line_chart
from mmext.evaluation.report.table import Table
from mmext.evaluation.runs import Run, parse_metrics

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --weak: #64707d;
  --paper: #ffffff; --card: #f4f6f8; --line: #d5dbe1; --s0: #5b6b7b;
  --s1: #0b7bc1; --s2: #c2570c; --s3: #2c8a4b; --s4: #8a3fb0; --s5: #b08a00;
  --truth: #1c9b4f; --warn: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee;
  --weak: #98a4b0; --paper: #12171c; --card: #1b2229; --line: #343e48;
  --s0: #a3b1bf; --s1: #58b4f0; --s2: #f19a5a; --s3: #66c98a; --s4: #c592e4;
  --s5: #e0c252; --truth: #5cd68f; --warn: #f0b35a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.card { background: var(--card); border-radius: 8px; padding: .8rem 1rem;
  margin: .8rem 0; } .card p, .card h2 { margin: .3rem 0; }
.card p:first-of-type { font-weight: 600; } .warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  white-space: nowrap; font-size: .9rem; }
th, td { padding: .25rem .45rem; text-align: right;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.note { color: var(--weak); font-size: .85rem; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px;
  padding: .6rem; } figcaption { font-size: .85rem; color: var(--weak); }
svg { width: 100%; height: auto; display: block; overflow: visible; }
svg text { fill: var(--ink); font-size: 10px; }
svg line, svg polyline { fill: none; stroke-width: 1.6; }
svg .grid { stroke: var(--line); stroke-width: .7; }
svg .zero { stroke: var(--weak); stroke-dasharray: 3 3; }
svg .weak { stroke: var(--weak); } svg circle.weak { fill: var(--weak); }
svg.picture { overflow: hidden; }
svg rect.frame { fill: var(--paper); }
svg rect.box { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke;
  filter: drop-shadow(0 0 1px var(--paper)); }
svg rect.box.truth { stroke: var(--truth); stroke-dasharray: 6 4; }
svg text.label { paint-order: stroke; stroke: var(--paper);
  stroke-width: 3px; font-size: revert-layer; }
.name { display: inline-block; margin-right: 1em; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .3em;
  border-radius: 2px; }
"""
_STYLE += ''.join(
    f'svg line.s{i}, svg polyline.s{i}, svg rect.box.s{i} '
    f'{{ stroke: var(--s{i}); }} svg circle.s{i}, svg rect.s{i}:not(.box), '
    f'svg text.s{i} {{ fill: var(--s{i}); }} .k{i} '
    f'{{ background: var(--s{i}); }}\n'
    for i in range(6)
)
_LONGEST_FOREST = 80


def html_page(
    report: Report, images: Path | None = None, pictures: int = 6
) -> str:
    """The whole page.

    Args:
        report: What to show.
        images: Folder of the images. Default: what the baseline's config
            says; without either, boxes are drawn on blank frames.
        pictures: Most images to show a candidate. Default: 6.
    """
    title = ' / '.join(report.names)
    keys = ''.join(
        f'<span class="name"><span class="key k{i}"></span>{escape(name)}'
        '</span>'
        for i, name in enumerate(report.names[:6])
    )
    body = [f'<h1>{escape(title)}</h1><p>{keys}</p>']
    for heading, lines in report.verdicts():
        body.append(_card(heading, lines))
    if report.warnings:
        body.append(
            _card('Inputs', [f'Warning: {w}' for w in report.warnings])
        )
    tables = report.tables()
    body.append(_table(tables[0]))
    body += _forests(report)
    body += _section('Precision and recall', _curves(report))
    body += _section('Error types (TIDE, AP50 lost)', [_errors(report)])
    body += _section('Training', _training(report))
    body += _pictures(report, images, pictures)
    body += [_table(t) for t in (*tables[1:], *report.details())]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, '
        'initial-scale=1">'
        f'<title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f'<body>{"".join(body)}</body></html>\n'
    )


def _card(heading: str, lines: list[str]) -> str:
    text = ''.join(
        f'<p{" class=warn" if x.startswith("Warning") else ""}>{escape(x)}</p>'
        for x in lines
    )
    return f'<div class="card"><h2>{escape(heading)}</h2>{text}</div>'


def _section(heading: str, figures: list[str]) -> list[str]:
    figures = [f for f in figures if f]
    if not figures:
        return []
    return [
        f'<h2>{escape(heading)}</h2><div class="grid">{"".join(figures)}</div>'
    ]


def _figure(svg: str, caption: str) -> str:
    if not svg:
        return ''
    return f'<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def _table(table: Table) -> str:
    head = ''.join(f'<th>{escape(c)}</th>' for c in table.header)
    rows = ''.join(
        '<tr>' + ''.join(f'<td>{escape(str(c))}</td>' for c in row) + '</tr>'
        for row in table.rows
    )
    notes = ''.join(f'<p class="note">{escape(n)}</p>' for n in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead>'
        f'<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}'
    )


def _forests(report: Report) -> list[str]:
    parts = []
    for i, comparison in enumerate(report.comparisons, 1):
        name, style = report.names[i], SERIES[i % len(SERIES)]
        metrics = [
            (m, *_points(comparison.both.get(m) or comparison.differences[m]))
            for m in METRICS
            if m in comparison.differences
        ]
        classes = sorted(
            ((c.name, *_points(c.difference)) for c in comparison.classes),
            key=lambda row: -row[1] if np.isfinite(row[1]) else np.inf,
        )
        shown = classes[:_LONGEST_FOREST]
        parts += _section(
            f'Differences: {name}',
            [
                _figure(
                    forest(metrics, 'AP or AR points', style),
                    'Every metric, with its interval; grey holds zero.',
                ),
                _figure(
                    forest(shown, 'AP points', style),
                    'AP by class, over images; grey holds zero, no whisker: '
                    'too few images. Not corrected for many classes, see '
                    'the table.',
                )
                if len(classes) > 1
                else '',
            ],
        )
    return parts


def _points(estimate) -> tuple[float, float, float]:
    low, high = estimate.interval
    return 100 * estimate.value, 100 * low, 100 * high


def _curves(report: Report) -> list[str]:
    recall = RECALL_THRESHOLDS.tolist()
    return [
        _figure(
            line_chart(
                [
                    (name, recall, mean_curve(side.matches[0], t).tolist())
                    for name, side in zip(
                        report.names, report.sides, strict=True
                    )
                ],
                'recall',
                'precision',
                (0.0, 1.0),
            ),
            f'IoU {0.5 + 0.05 * t:.2f}, mean over classes, first seed.',
        )
        for t in (0, 5)
    ]


def _errors(report: Report) -> str:
    groups = []
    for name, side in zip(report.names, report.sides, strict=True):
        lost = [error_types(report.truth, p) for p in side.predictions]
        mean = [100 * float(np.mean([x[k] for x in lost])) for k in lost[0]]
        groups.append((name, mean))
    chart = bars(list(KINDS.values()), groups, 'AP50 points lost')
    return _figure(chart, 'Mean over seeds; lower is better.')


def _training(report: Report) -> list[str]:
    runs = [side.side.runs[0] for side in report.sides]
    loss = [
        (name, *_series(run, 'loss'))
        for name, run in zip(report.names, runs, strict=True)
    ]
    val = [
        (name, *_validation(run, report.iou_type))
        for name, run in zip(report.names, runs, strict=True)
    ]
    return [
        _figure(
            line_chart(loss, 'iteration', 'loss'), 'Training loss, first seed.'
        ),
        _figure(line_chart(val, 'epoch', 'AP'), 'Validation AP, first seed.'),
    ]


def _series(run: Run, key: str) -> tuple[list[float], list[float]]:
    rows = [r for r in run.train_log if isinstance(r.get(key), (int, float))]
    rows = rows[:: max(1, len(rows) // 300)]
    return [r['step'] for r in rows], [r[key] for r in rows]


def _validation(run: Run, iou_type: str) -> tuple[list[float], list[float]]:
    rows = [(r['step'], parse_metrics(r).get(iou_type)) for r in run.val_log]
    rows = [(step, m['AP']) for step, m in rows if m and 'AP' in m]
    return [r[0] for r in rows], [r[1] for r in rows]


def _pictures(report: Report, images: Path | None, count: int) -> list[str]:
    base = report.sides[0]
    config = base.side.runs[0].config
    folder = images or image_folder(config)
    parts = []
    for i, side in enumerate(report.sides[1:], 1):
        name = report.names[i]
        found = most_different(base.matches[0], side.matches[0], count)
        pair = [
            (SERIES[0], base.predictions[0]),
            (SERIES[i % len(SERIES)], side.predictions[0]),
        ]
        figures = []
        for index, gap in found:
            image_id = int(report.truth.image_ids[index])
            better = name if gap > 0 else report.names[0]
            svg = picture(report.truth, image_id, pair, folder)
            caption = (
                f'Image {image_id}: {better} is ahead by {abs(gap)} '
                '(objects found less false positives, scores from 0.3). '
                'Dashed: ground truth.'
            )
            figures.append(_figure(svg, caption))
        parts += _section(f'Where {name} differs most', figures)
    return parts
