# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Angles between the filters of a layer.

What the orthogonality terms of :mod:`mmext.regularizers` act on. The paper of
the Self-Orthogonality Module (WACV 2020) judges a network by the histogram of
these angles: its mean at 90 degrees, its spread small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmext.regularizers.base import filter_matrix
from mmext.regularizers.hook import select_layers

from .figures import COLORS, new_figure, save, tidy


@dataclass(frozen=True)
class Angles:
    """Pairwise angles of one layer's filters.

    Attributes:
        degrees: One a pair within a group; filters of norm 0 have none.
        dead: Filters of norm 0.
        limit: Whether all filters could be orthogonal: not more filters in
            a group than numbers in a filter.
    """

    degrees: np.ndarray
    dead: int
    limit: bool

    @property
    def mean(self) -> float:
        """In degrees; 90 where a layer has no pair of living filters."""
        return float(self.degrees.mean()) if len(self.degrees) else 90.0

    @property
    def spread(self) -> float:
        """Standard deviation in degrees; 0 where a layer has no pair."""
        return float(self.degrees.std()) if len(self.degrees) else 0.0

    @property
    def coherence(self) -> float:
        """The largest ``|cos|`` of any pair."""
        if not len(self.degrees):
            return 0.0
        return float(np.abs(np.cos(np.radians(self.degrees))).max())


def layer_angles(layer: nn.Module) -> Angles:
    """Angles of all pairs of filters within a group, in degrees."""
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
    """Angles of each layer whose name matches, see ``OrthogonalityHook``.

    Frozen layers have angles too.

    Raises:
        UserError: Where a pattern matches no layer.
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


def angle_table(models: Mapping[str, Mapping[str, Angles]]) -> str:
    """Markdown: each layer's mean, spread and coherence, model by model."""
    head = ['layer', 'pairs']
    for name in models:
        head += [f'{name}: mean', 'spread', 'max cos']
    lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
    for layer in dict.fromkeys(n for found in models.values() for n in found):
        cells, note, pairs = [], '', 0
        for found in models.values():
            if layer not in found:
                cells += ['', '', '']
                continue
            a = found[layer]
            pairs = max(pairs, len(a.degrees))
            note = '' if a.limit else ' *'
            cells += [
                f'{a.mean:.2f}',
                f'{a.spread:.2f}',
                f'{a.coherence:.3f}',
            ]
        lines.append(f'| {layer}{note} | {pairs} | {" | ".join(cells)} |')
    if any(not a.limit for found in models.values() for a in found.values()):
        lines.append('\n\\* more filters than inputs: not all can be at 90°.')
    return '\n'.join(lines)


def draw_angles(
    models: Mapping[str, Mapping[str, Angles]], path: str | Path
) -> Path:
    """A histogram of angles a layer, the models on top of each other."""
    layers = list(dict.fromkeys(n for f in models.values() for n in f))
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure = new_figure(max(5.0, 2.6 * columns), 2.0 * rows + 0.9)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, layer in zip(axes, layers, strict=False):
        shown = {n: f[layer].degrees for n, f in models.items() if layer in f}
        reach = max(
            [5.0, *(np.abs(d - 90).max() for d in shown.values() if len(d))]
        )
        bins = np.linspace(90 - reach, 90 + reach, 61)
        for i, (name, degrees) in enumerate(shown.items()):
            color = COLORS[i % len(COLORS)]
            ax.hist(
                degrees, bins, color=color, histtype='step', lw=1.3, label=name
            )
            if len(degrees):
                ax.text(
                    0.02,
                    0.95 - 0.1 * i,
                    f'{degrees.mean():.1f} ± {degrees.std():.1f}°',
                    color=color,
                    fontsize=7,
                    va='top',
                    transform=ax.transAxes,
                )
        ax.axvline(90, color='black', lw=0.8, ls=':')
        tidy(ax)
        # A narrow peak would hide the other models on a linear scale.
        ax.set_yscale('log')
        ax.set_title(layer, fontsize=8)
        ax.tick_params(labelsize=8)
    for ax in axes[len(layers) :]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside upper center', ncols=4, frameon=False
    )
    figure.supylabel('pairs (log scale)', fontsize=9)
    figure.supxlabel('angle between two filters (degrees)', fontsize=9)
    return save(figure, path)
