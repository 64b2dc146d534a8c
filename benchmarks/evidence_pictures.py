# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the pictures of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmext.utils.figures import (
    color,
    marker,
    new_figure,
    save,
    shared_legend,
    tidy,
)


def draw_results(
    sides: Mapping[str, Sequence[float]], metric: str, path: Path
) -> None:
    """Draws the result of each run, a row a side."""
    figure = new_figure(6.4, 0.8 + 0.3 * len(sides))
    ax = figure.subplots()
    tidy(ax)
    for row, values in enumerate(sides.values()):
        ax.plot(values, [row] * len(values), 'o', color=color(row))
        if len(values):
            ax.plot(np.mean(values), row, '|', color='black', ms=14)
    ax.set_yticks(range(len(sides)), [*sides])
    ax.set(xlabel=f'{metric} of each training; the line: mean')
    ax.set_ylim(len(sides) - 0.5, -0.5)
    save(figure, path)


def draw_stiffness(
    sides: Mapping[str, Sequence[tuple[Mapping[str, Any], float]]],
    metric: str,
    path: Path,
) -> None:
    """Draws NSI along the blocks, and the metric against TNS.

    As Figs. 3 and 7 of "Understanding Self-attention Mechanism via Dynamical
    System Perspective" (ICCV 2023). ``sides`` are the measures and the result
    of each run.
    """
    figure = new_figure(7.6, 3.2)
    along, against = figure.subplots(1, 2)
    for ax in (along, against):
        tidy(ax)
    for number, (name, runs) in enumerate(sides.items()):
        style = {'color': color(number), 'marker': marker(number), 'ms': 4}
        for run, _ in runs:
            along.plot([*run['nsi'].values()], **style, lw=0.9)
        tns, results = [run['tns'] for run, _ in runs], [r for _, r in runs]
        against.plot(tns, results, **style, ls='', label=name)
    blocks = next(run['nsi'] for runs in sides.values() for run, _ in runs)
    along.set_xticks(range(len(blocks)), [*blocks], rotation=90, fontsize=8)
    along.set(ylabel='NSI, mean over images')
    against.set(xlabel='TNS', ylabel=metric)
    shared_legend(figure, [against], 'upper')
    save(figure, path)
