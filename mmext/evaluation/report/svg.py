# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Small SVG charts that follow the page's colours, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

#: Classes of the page's style sheet: one colour a side.
SERIES = ('s0', 's1', 's2', 's3', 's4', 's5')


def line_chart(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Lines with axes; points whose y is nan are left out.

    Args:
        series: (name, x, y) of each line.
        x_label: Under the axis.
        y_label: Beside the axis.
        y_range: Ends of the axis. Default: those of the values.
    """
    width, height = 360, 240
    left, right, top, bottom = 44, 8, 8, 34
    xs = [x for _, values, _ in series for x in values]
    ys = [y for _, _, values in series for y in values if math.isfinite(y)]
    if not xs or not ys:
        return ''
    x0, x1 = min(xs), max(xs)
    y0, y1 = y_range or (min(ys), max(ys))
    x1, y1 = x1 + (x1 == x0), y1 + (y1 == y0)

    def place(x: float, y: float) -> str:
        px = left + (x - x0) / (x1 - x0) * (width - left - right)
        py = top + (y1 - y) / (y1 - y0) * (height - top - bottom)
        return f'{px:.1f},{py:.1f}'

    parts = _grid(x0, x1, y0, y1, place, width, height, right, bottom)
    for i, (name, x, y) in enumerate(series):
        style = SERIES[i % len(SERIES)]
        points = [
            place(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)
        ]
        parts.append(
            f'<polyline class="{style}" points="{" ".join(points)}">'
            f'<title>{escape(name)}</title></polyline>'
        )
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="12" y="{height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {height / 2})">{escape(y_label)}</text>'
    )
    return _svg(width, height, parts, f'{y_label} over {x_label}')


def forest(
    rows: Sequence[tuple[str, float, float, float]], unit: str, series: str
) -> str:
    """(name, value, low, high) as points with whiskers, zero marked.

    Args:
        rows: One a line; those without a value are left out.
        unit: Under the axis.
        series: Style of the intervals that leave zero out.
    """
    rows = [r for r in rows if math.isfinite(r[1])]
    if not rows:
        return ''
    width, left, step = 360, 128, 18
    height = step * len(rows) + 34
    ends = [v for _, *values in rows for v in values if math.isfinite(v)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * (high - low or 1)
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 10)

    parts = [
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" '
        f'y2="{height - 28}"/>'
    ]
    for i, (name, value, lo, hi) in enumerate(rows):
        y = step * i + 14
        shown = math.isfinite(lo)
        style = series if shown and (lo > 0 or hi < 0) else 'weak'
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">'
            f'{escape(_short(name))}</text>'
        )
        if shown:
            parts.append(
                f'<line class="{style}" x1="{x(lo):.1f}" x2="{x(hi):.1f}" '
                f'y1="{y}" y2="{y}"/>'
            )
        text = f'{value:+.1f}' + (f' [{lo:+.1f}, {hi:+.1f}]' if shown else '')
        parts.append(
            f'<circle class="{style}" cx="{x(value):.1f}" cy="{y}" r="3.5">'
            f'<title>{escape(name)}: {text}</title></circle>'
        )
    for tick in _ticks(low, high, 5):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 14}" '
            f'text-anchor="middle">{f"{tick:+g}" if tick else 0}</text>'
        )
    parts.append(
        f'<text x="{(left + width) / 2}" y="{height - 4}" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    return _svg(width, height, parts, unit)


def bars(
    names: Sequence[str],
    groups: Sequence[tuple[str, Sequence[float]]],
    unit: str,
) -> str:
    """One group of horizontal bars a name, one bar a side."""
    width, left, bar = 360, 128, 12
    step = bar * len(groups) + 8
    height = step * len(names) + 20
    most = max((v for _, values in groups for v in values), default=0) or 1
    parts = []
    for i, name in enumerate(names):
        y = step * i + 4
        parts.append(
            f'<text x="{left - 8}" y="{y + step / 2}" text-anchor="end">'
            f'{escape(name)}</text>'
        )
        for j, (side, values) in enumerate(groups):
            length = max(0.0, values[i]) / most * (width - left - 44)
            style = SERIES[j % len(SERIES)]
            parts.append(
                f'<rect class="{style}" x="{left}" y="{y + bar * j}" '
                f'width="{length:.1f}" height="{bar - 2}">'
                f'<title>{escape(side)}: {values[i]:.2f}</title></rect>'
                f'<text x="{left + length + 4:.1f}" '
                f'y="{y + bar * j + bar - 3}">{values[i]:.1f}</text>'
            )
    parts.append(
        f'<text x="{(left + width) / 2}" y="{height - 4}" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    return _svg(width, height, parts, unit)


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else name[: most - 1] + '…'


def _svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _grid(x0, x1, y0, y1, place, width, height, right, bottom) -> list[str]:
    parts = []
    for y in _ticks(y0, y1, 5):
        px, py = place(x0, y).split(',')
        parts.append(
            f'<line class="grid" x1="{px}" x2="{width - right}" y1="{py}" '
            f'y2="{py}"/><text x="{float(px) - 4:.1f}" '
            f'y="{float(py) + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in _ticks(x0, x1, 5):
        px = place(x, y0).split(',')[0]
        parts.append(
            f'<text x="{px}" y="{height - bottom + 14}" '
            f'text-anchor="middle">{x:g}</text>'
        )
    return parts


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in a range."""
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= raw)
    first = math.ceil(low / step)
    last = math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]
