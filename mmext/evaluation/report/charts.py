# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The charts of the HTML page: values for the macros of ``charts.html``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

#: Arguments of a macro; None if there is nothing to draw.
Chart = dict[str, Any] | None
_WIDTH = 360
_NAMES = 128  # width of the names of bars and whiskers
_LETTERS = 20  # of such a name
MARKED = 30  # points; more would hide their line


@dataclass
class Axis:
    """Maps values from ``low`` to ``high`` to pixels."""

    low: float
    high: float
    start: float
    stop: float
    whole: bool = False  # ticks are integers

    def __post_init__(self) -> None:
        if self.low == self.high:
            pad = 0.5 * abs(self.low) or 1.0
            pad = 1.0 if self.whole else min(1.0, pad)
            self.low, self.high = self.low - pad, self.high + pad

    def at(self, value: float) -> float:
        """Returns the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Returns three to seven round values."""
        raw = (self.high - self.low) / 6
        unit = 10 ** math.floor(math.log10(raw))
        step = next(s * unit for s in (1, 2, 4, 5, 10) if s * unit >= raw)
        step = max(1, step) if self.whole else step
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [round(i * step, 10) for i in range(first, last + 1)]


def tick_text(value: float) -> str:
    """Returns at most six characters: ``0.25``, ``250``, ``25k``."""
    if abs(value) >= 1e6:
        return f'{value / 1e6:g}M'
    return f'{value / 1e3:g}k' if abs(value) >= 1e4 else f'{value:g}'


def short_name(name: str) -> str:
    """Returns a name that fits beside bars and whiskers.

    A long one is cut in its middle: names often differ at their end.
    """
    if cell_len(name) <= _LETTERS:
        return name
    half = _LETTERS // 2
    head = set_cell_size(name, half).rstrip()
    tail = set_cell_size(name[::-1], half - 1)[::-1].lstrip()
    return f'{head}…{tail}'


def line_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    styles: Sequence[int] | None = None,
) -> Chart:
    """Returns a line for each (name, points), without points of y nan.

    A few points are marked, so that a single one can be seen. ``styles`` are
    the numbers of the lines' colours, by default one for each line.
    """
    finite = [
        (name, [(x, y) for x, y in points if math.isfinite(y)])
        for name, points in series
    ]
    everything = [point for _, points in finite for point in points]
    if not everything:
        return None
    xs, ys = zip(*everything, strict=True)
    low, high = y_range or (min(ys), max(ys))
    pad = 0 if y_range else 0.05 * (high - low)
    y_axis = Axis(low - pad, high + pad, 206, 8)
    longest = max(len(tick_text(tick)) for tick in y_axis.ticks())
    whole = all(isinstance(x, int) for x in xs)
    x_axis = Axis(min(xs), max(xs), 26 + 6 * longest, _WIDTH - 14, whole)
    lines = [
        (
            name,
            [(x_axis.at(x), y_axis.at(y)) for x, y in points],
            len(points) <= MARKED,
            style % 6,
        )
        for (name, points), style in zip(
            finite, styles or range(len(finite)), strict=True
        )
    ]
    labels = {'x_label': x_label, 'y_label': y_label}
    return {'x': x_axis, 'y': y_axis, 'lines': lines, **labels}


def forest(
    rows: Iterable[tuple[str, float, float, float]],
    label: str,
    side: int,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Returns whiskers from (name, difference, low, high).

    Rows without a difference are left out. ``marks`` are values that a line
    with a name shows, such as a planned gain.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return None
    ends = [v for _, *values in rows for v in values if math.isfinite(v)]
    ends += [value for value, _ in marks]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * (high - low or 1)
    axis = Axis(low - pad, high + pad, _NAMES, _WIDTH - 14)
    return {
        'x': axis,
        'label': label,
        'side': side,
        'rows': rows,
        'marks': marks,
    }


def dots(rows: Sequence[tuple[str, Sequence[float]]], label: str) -> Chart:
    """Returns a row for each (name, values): a point a value, and the mean."""
    finite = [(name, [v for v in vs if math.isfinite(v)]) for name, vs in rows]
    values = [v for _, vs in finite for v in vs]
    if not values:
        return None
    low, high = min(values), max(values)
    pad = 0.05 * (high - low)
    axis = Axis(low - pad, high + pad, _NAMES, _WIDTH - 14)
    means = [(name, vs, sum(vs) / len(vs)) for name, vs in finite if vs]
    return {'x': axis, 'label': label, 'rows': means}


def bars(
    names: Sequence[str],
    sides: Sequence[tuple[str, Sequence[float]]],
    label: str,
) -> Chart:
    """Returns a group of bars for each name, one bar a (side, values)."""
    most = max((v for _, values in sides for v in values), default=0)
    axis = Axis(0, max(most, 0) or 1, _NAMES, _WIDTH - 44)
    return {'x': axis, 'names': names, 'sides': sides, 'label': label}
