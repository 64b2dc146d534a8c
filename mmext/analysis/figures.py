# Licensed under the Apache License, Version 2.0. See LICENSE.
"""How the figures of the analysis tools look."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito: told apart with any colour vision.
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
    """A figure of that many inches that lays itself out."""
    return Figure(figsize=(width, height), layout='constrained')


def tidy(ax: Axes) -> None:
    """Removes the frame's right and top, and draws a faint grid."""
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(True, color='#dddddd', linewidth=0.6)
    ax.set_axisbelow(True)


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG of 110 dots per inch and gives its path back."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
