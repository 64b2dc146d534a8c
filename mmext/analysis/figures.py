# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common style of the figures of the analysis tools."""

from __future__ import annotations

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


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout='constrained')


def color(number: int) -> str:
    """Returns a color; they repeat after seven."""
    return COLORS[number % len(COLORS)]


def tidy(ax: Axes) -> None:
    """Removes the right and top of the frame, and draws a light grid."""
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(True, color='#dddddd', linewidth=0.6)
    ax.set_axisbelow(True)


def shared_legend(
    figure: Figure, axes: Iterable[Axes], place: str, columns: int
) -> None:
    """Draws one legend ('upper' or 'lower') with each label of the axes."""
    entries = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc=f'outside {place} center',
        ncols=columns,
        frameon=False,
    )


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG with 110 dots per inch and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
