# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common style of the matplotlib figures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito: distinct with any colour vision.
COLORS = (
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#CC79A7',
    '#E69F00',
    '#56B4E9',
    '#000000',
)
# Both change from one model to the next, so that no marker is a group.
MARKERS = 'osD^vPX<>*'


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout='constrained')


def color(number: int) -> str:
    """Returns a color; they repeat after seven."""
    return COLORS[number % len(COLORS)]


def marker(number: int) -> str:
    """Returns a marker; they repeat after ten."""
    return MARKERS[number % len(MARKERS)]


def wrap(text: str, inches: float, size: float) -> str:
    """Breaks a title of a font size into lines of at most a width.

    A line ends after a space or one of ``._-/``, as names have them.
    """
    limit = int(inches * 72 / (0.65 * size))
    lines = ['']
    for part in re.findall(r'[^ ._/-]*[ ._/-]?', text):
        if lines[-1] and len(lines[-1] + part) > limit:
            lines.append('')
        lines[-1] += part
    return '\n'.join(line.rstrip() for line in lines)


def tidy(ax: Axes) -> None:
    """Removes the right and top of the frame, and draws a light grid."""
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(True, color='#dddddd', linewidth=0.6)
    ax.set_axisbelow(True)


def shared_legend(figure: Figure, axes: Iterable[Axes], place: str) -> None:
    """Draws one legend ('upper' or 'lower') with each label of the axes.

    It has as many columns as fit into the width of the figure.
    """
    entries = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(
            entries.values(),
            entries.keys(),
            loc=f'outside {place} center',
            ncols=columns,
            frameon=False,
        )
        if columns == 1 or (
            legend.get_window_extent().width <= figure.bbox.width
        ):
            break
        legend.remove()


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG with 110 dots per inch and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
