# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common style of the matplotlib figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter

from mmext.utils.files import replacing
from mmext.utils.text import fold

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
    """Breaks a title of a font size into lines of at most a width."""
    return fold(text, int(inches * 72 / (0.65 * size)))


def tidy(ax: Axes) -> None:
    """Removes the right and top of the frame, and draws a light grid.

    Numbers are complete: an offset above the axis, such as +1, is overlooked.
    """
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(True, color='#dddddd', linewidth=0.6)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_formatter(), ScalarFormatter):
            axis.get_major_formatter().set_useOffset(False)


def shared_legend(figure: Figure, axes: Iterable[Axes], place: str) -> None:
    """Draws one legend ('upper' or 'lower') with each label of the axes."""
    entries = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    place = f'outside {place} center'
    fitting_legend(figure, entries.values(), entries.keys(), loc=place)


def fitting_legend(
    figure: Figure,
    handles: Collection[object],
    labels: Collection[str],
    **options: Any,
) -> Legend:
    """Draws a legend with as many columns as fit into the figure."""
    for columns in range(max(1, len(labels)), 0, -1):
        legend = figure.legend(
            handles, labels, ncols=columns, frameon=False, **options
        )
        plain(legend)
        if legend.get_window_extent().width <= figure.bbox.width:
            break
        if columns > 1:
            legend.remove()
    return legend


def plain(artist: Artist) -> None:
    """Makes all texts show a ``$``, which may be in a name, as it is."""
    for text in artist.findobj(Text):
        text.set_parse_math(False)


def save(figure: Figure, path: str | Path, **options: Any) -> Path:
    """Writes a PNG, completely or not at all, and returns its path.

    ``options`` are those of ``savefig``; by default 110 dots per inch.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain(figure)
    with replacing(path) as part:
        figure.savefig(part, **{'dpi': 110, 'format': 'png', **options})
    return path
