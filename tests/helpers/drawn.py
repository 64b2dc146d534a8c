# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Laws of every matplotlib figure: labels that can be read, and content."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test saves, in order."""
    found = []
    save = Figure.savefig

    def keep(figure: Figure, path: object, **options: object) -> None:
        save(figure, path, **options)
        found.append(figure)
        pixels = np.asarray(Image.open(path).convert('RGB'))
        assert pixels.std() > 5, f'{path} is blank'

    monkeypatch.setattr(Figure, 'savefig', keep)
    return found


def legend_labels(figure: Figure) -> list[str]:
    """The labels of the legends of a figure and of its axes."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [
        text.get_text()
        for legend in legends
        if legend
        for text in legend.get_texts()
    ]


def require_readable(figure: Figure, tight: bool = False) -> None:
    """Asserts that texts do not overlap and are inside of the figure.

    Every visible panel has data. A ``tight`` figure is as large as its texts.
    """
    figure.draw_without_rendering()
    texts = [t for t in _texts(figure) if t.get_visible() and t.get_text()]
    boxes = [
        (t.get_text(), t.get_window_extent())
        for t in texts
        if t.get_rotation() in (0, 90)  # others have larger boxes
    ]
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1
        inside &= box.x1 <= figure.bbox.x1 + 1
        inside &= box.y1 <= figure.bbox.y1 + 1
        assert inside or tight, f'{text!r} is cut'
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f'{one!r} overlaps {two!r}'
    for ax in figure.axes:
        if ax.get_visible():
            assert ax.has_data() or ax.texts, ax.get_title()
            for axis in (ax.xaxis, ax.yaxis):
                assert not axis.get_offset_text().get_text()


def _texts(figure: Figure) -> Iterator[Text]:
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        if ax.get_legend():
            yield from ax.get_legend().get_texts()
        yield from (ax.title, *ax.texts)
        if not ax.axison:
            continue
        for axis in (ax.xaxis, ax.yaxis):
            yield axis.label
            view = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if view[0] <= tick.get_loc() <= view[1]:
                    yield tick.label1
                    yield tick.label2
