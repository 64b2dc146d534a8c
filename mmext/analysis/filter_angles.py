# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Angles between the filters of a layer.

The orthogonality terms of :mod:`mmext.regularizers` act on these angles. The
paper of the Self-Orthogonality Module (WACV 2020) judges a network by their
histogram: the mean should be 90 degrees, and the spread small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmext.analysis.loading import load_model
from mmext.evaluation.report.table import Table
from mmext.regularizers.base import filter_matrix
from mmext.regularizers.hook import select_layers
from mmext.utils.figures import (
    color,
    new_figure,
    save,
    shared_legend,
    tidy,
    wrap,
)

#: Model -> layer -> angles.
Models = Mapping[str, Mapping[str, 'Angles']]


@dataclass(frozen=True)
class Angles:
    """Angles between the filters of one layer.

    Attributes:
        degrees: One angle per pair within a group, without filters of norm 0.
        dead: Number of filters of norm 0.
        limit: Whether all filters can be orthogonal: a group has no more
            filters than a filter has weights.
    """

    degrees: np.ndarray
    dead: int
    limit: bool

    @property
    def mean(self) -> float:
        """Mean in degrees; 90 without a pair of filters."""
        return float(self.degrees.mean()) if len(self.degrees) else 90.0

    @property
    def spread(self) -> float:
        """Standard deviation in degrees; 0 without a pair of filters."""
        return float(self.degrees.std()) if len(self.degrees) else 0.0

    @property
    def coherence(self) -> float:
        """The largest ``|cos|`` of all pairs; 0 without a pair."""
        if not len(self.degrees):
            return 0.0
        return float(np.abs(np.cos(np.radians(self.degrees))).max())


def compare_angles(
    config: str | Path,
    checkpoint: str | Path,
    layers: str | Sequence[str],
    before: str | Path | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Angles]]:
    """Measures the filters of a model, and optionally of its earlier state.

    Args:
        config: Config file of the model.
        checkpoint: Weights; ``'init'`` for those before training, random ones
            of the ``seed`` included.
        layers: Regular expressions of layer names.
        before: Weights to compare with, as ``checkpoint``. Default: none.
        seed: Seed of random weights. Default: 0.

    Returns:
        Angles by layer; by ``'before'`` and ``'after'``, or by the name of
        the checkpoint if there is no ``before``.
    """
    states = {Path(checkpoint).stem: checkpoint}
    if before is not None:
        states = {'before': before, 'after': checkpoint}
    return {
        name: model_angles(load_model(config, weights, seed=seed)[1], layers)
        for name, weights in states.items()
    }


def layer_angles(layer: nn.Module) -> Angles:
    """Measures the angles of all pairs of filters within a group."""
    filters = filter_matrix(layer).detach().double()
    norms = filters.norm(dim=-1, keepdim=True)
    alive = norms[..., 0] > 0
    unit = filters / norms.clamp_min(1e-300)
    cosine = (unit @ unit.transpose(1, 2)).clamp(-1, 1)
    pairs = alive[:, :, None] & alive[:, None, :]
    upper = torch.ones_like(pairs).triu(1)
    degrees = torch.rad2deg(torch.acos(cosine[pairs & upper]))
    return Angles(
        degrees.cpu().numpy(),
        int((~alive).sum()),
        filters.shape[1] <= filters.shape[2],
    )


def model_angles(
    model: nn.Module, patterns: str | Sequence[str]
) -> dict[str, Angles]:
    """Measures each layer whose name matches, including frozen layers.

    ``patterns`` are regular expressions, as for ``OrthogonalityHook``. Raises
    `UserError` if a pattern matches no layer.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        model.requires_grad_(True)
        layers = select_layers(model, patterns)
    finally:
        for parameter in frozen:
            parameter.requires_grad = False
    return {name: layer_angles(layer) for name, layer in layers.items()}


def _layers(models: Models) -> list[str]:
    return list(dict.fromkeys(n for found in models.values() for n in found))


def angle_table(models: Models) -> Table:
    """Returns mean, spread and coherence of each layer and model."""
    header = ['layer', 'pairs']
    for name in models:
        header += [f'{name}: mean', 'spread', 'max cos']
    rows, notes = [], []
    for layer in _layers(models):
        cells, mark, pairs = [], '', 0
        for found in models.values():
            if layer not in found:
                cells += ['', '', '']
                continue
            a = found[layer]
            pairs = max(pairs, len(a.degrees))
            if not a.limit:
                mark = ' *'
                notes = ['* more filters than weights: not all can be at 90°.']
            cells += [f'{a.mean:.2f}', f'{a.spread:.2f}', f'{a.coherence:.3f}']
        rows.append([f'{layer}{mark}', str(pairs), *cells])
    return Table(header, rows, notes=notes)


def draw_angles(models: Models, path: str | Path) -> Path:
    """Draws a histogram of the angles of each layer, one line per model."""
    layers = _layers(models)
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    width = max(5.0, 2.6 * columns)
    figure = new_figure(width, (1.6 + 0.15 * len(models)) * rows + 0.9)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, layer in zip(axes, layers, strict=False):
        shown = {n: f[layer].degrees for n, f in models.items() if layer in f}
        reach = max(
            [5.0, *(np.abs(d - 90).max() for d in shown.values() if len(d))]
        )
        bins = np.linspace(90 - reach, 90 + reach, 61)
        highest = beside = 1.0
        for i, (name, degrees) in enumerate(shown.items()):
            heights, *_ = ax.hist(
                degrees,
                bins,
                color=color(i),
                histtype='step',
                lw=1.3,
                label=name,
            )
            highest = max(highest, heights.max())
            # Below the numbers, which take 40 % of the width.
            beside = max(beside, heights[:24].max())
            if len(degrees):
                ax.text(
                    0.02,
                    0.95 - 0.1 * i,
                    f'{degrees.mean():.1f} ± {degrees.std():.1f}°',
                    color=color(i),
                    fontsize=7,
                    va='top',
                    transform=ax.transAxes,
                )
        ax.axvline(90, color='black', lw=0.8, ls=':')
        tidy(ax)
        # On a linear scale, a narrow peak would hide the other models.
        low, free = 0.7, min(0.7, 0.1 * len(shown) + 0.05)
        top = low * (beside / low) ** (1 / (1 - free))
        ax.set_ylim(low, max(top, 1.5 * highest))
        ax.set_yscale('log')
        ax.yaxis.set_major_formatter('{x:g}')
        ax.yaxis.set_minor_formatter('')
        if not any(map(len, shown.values())):
            ax.text(0.5, 0.5, 'no pair', ha='center', transform=ax.transAxes)
        ax.set_title(wrap(layer, (width - 1.5) / columns, 8), fontsize=8)
        ax.tick_params(labelsize=8)
    for ax in axes[len(layers) :]:
        ax.set_visible(False)
    shared_legend(figure, axes[: len(layers)], 'upper')
    figure.supylabel('pairs (log scale)', fontsize=9)
    figure.supxlabel('angle between two filters (degrees)', fontsize=9)
    return save(figure, path)
