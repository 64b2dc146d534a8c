# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The charts of the HTML page: values for the macros of ``page.html``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Arguments of a macro; None if there is nothing to draw.
Chart = dict[str, Any] | None
_WIDTH = 360
_NAMES = 128  # width of the names of bars and whiskers


@dataclass
class Axis:
    """Maps the values ``low`` to ``high`` to the pixels ``start`` to ``stop``.

    If both values are equal, ``high`` becomes ``low + 1``.
    """

    low: float
    high: float
    start: float
    stop: float

    def __post_init__(self) -> None:
        if self.low == self.high:
            self.high += 1

    def at(self, value: float) -> float:
        """Returns the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Returns about five round values."""
        raw = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(raw))
        step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= raw)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [round(i * step, 10) for i in range(first, last + 1)]


def line_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Returns lines with axes.

    Args:
        series: (name, points) of each line; points with y nan are left out.
        x_label: Text below the x axis.
        y_label: Text beside the y axis.
        y_range: Ends of the y axis. Default: those of the values.
    """
    xs = [x for _, points in series for x, y in points if math.isfinite(y)]
    ys = [y for _, points in series for _, y in points if math.isfinite(y)]
    if not xs:
        return None
    x_axis = Axis(min(xs), max(xs), 44, _WIDTH - 8)
    low, high = y_range or (min(ys), max(ys))
    y_axis = Axis(low, high, 206, 8)
    lines = []
    for name, points in series:
        at = [
            (x_axis.at(x), y_axis.at(y)) for x, y in points if math.isfinite(y)
        ]
        lines.append((name, at))
    return {
        'x': x_axis,
        'y': y_axis,
        'x_label': x_label,
        'y_label': y_label,
        'lines': lines,
    }


def forest(
    rows: Iterable[tuple[str, float, float, float]], label: str, side: int
) -> Chart:
    """Returns differences with whiskers.

    Args:
        rows: (name, difference, low, high); rows without a difference are
            left out.
        label: Text below the x axis.
        side: Index of the side whose colour marks intervals without zero.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return None
    ends = [v for _, *values in rows for v in values if math.isfinite(v)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * (high - low or 1)
    axis = Axis(low - pad, high + pad, _NAMES, _WIDTH - 10)
    return {'x': axis, 'label': label, 'side': side, 'rows': rows}


def bars(
    names: Sequence[str],
    sides: Sequence[tuple[str, Sequence[float]]],
    label: str,
) -> Chart:
    """Returns a group of horizontal bars for each name.

    Args:
        names: One a group.
        sides: (name, values) of each side, one value a group.
        label: Text below the bars.
    """
    most = max((v for _, values in sides for v in values), default=0)
    axis = Axis(0, max(most, 0), _NAMES, _WIDTH - 44)
    return {'x': axis, 'names': names, 'sides': sides, 'label': label}
