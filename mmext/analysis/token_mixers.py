# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Local attention and depth-wise convolution at equal size.

"On the Connection between Local Attention and Dynamic Depth-wise Convolution"
(Han et al., ICLR 2022) compares ways to mix the positions of a feature map by
connectivity, sharing of weights and whether the weights depend on the input
(Table 1). Here each is measured as the block of a network: with the 1x1
layers before and after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmext.errors import UserError
from mmext.evaluation.report.table import Table
from mmext.models.backbones.dwnet import ConvMixer
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.local_mlp import LocalMLP
from mmext.utils.figures import (
    color,
    marker,
    new_figure,
    save,
    shared_legend,
    tidy,
)

WINDOW = 7
GROUP = 32  # channels of a head or of a group that shares weights
BN = {'type': 'BN'}


class WindowAttention(nn.Module):
    """mmdet's window attention on maps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = ShiftWindowMSA(channels, channels // GROUP, WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.attn(tokens, tuple(shape[2:]))
        return tokens.transpose(1, 2).reshape(shape)


@dataclass(frozen=True)
class Mixer:
    """A way to mix n positions of C channels, as in the paper's Table 1."""

    build: Callable[[int], nn.Module]  # from the number of channels
    shared: str  # what shares the same weights
    dynamic: str  # what they are computed from; '' if they are learned
    weights: str  # their number
    #: Multiply-adds per position and channel that PyTorch does not count.
    uncounted: int = 0


MIXERS = {
    'local attention (Swin)': Mixer(
        WindowAttention,
        'channels of a head',
        'pairs of positions',
        'n 49 C/32',
    ),
    'local MLP': Mixer(
        lambda c: ConvMixer(c, LocalMLP(c, WINDOW, GROUP), BN),
        'channels of a group, windows',
        '',
        '49 49 C/32',
    ),
    'depth-wise': Mixer(
        lambda c: ConvMixer(
            c, nn.Conv2d(c, c, WINDOW, padding=WINDOW // 2, groups=c), BN
        ),
        'positions',
        '',
        '49 C',
    ),
    'dynamic depth-wise': Mixer(
        lambda c: ConvMixer(c, HomogeneousDynamicConv(c, WINDOW, BN), BN),
        'positions',
        'the mean of the map',
        '49 C',
    ),
    'inhomogeneous dynamic': Mixer(
        lambda c: ConvMixer(
            c, InhomogeneousDynamicConv(c, WINDOW, GROUP, BN), BN
        ),
        'channels of a group',
        'the position itself',
        'n 49 C/32',
        uncounted=WINDOW**2,
    ),
}


@dataclass(frozen=True)
class Cost:
    """The cost of one mixer on a square map of ``side`` positions.

    ``flops`` are multiply-adds of one map, ``saved`` the bytes kept for the
    backward pass without parameters, and ``milliseconds`` the CPU time of a
    forward pass, the median over rounds.
    """

    side: int
    params: int
    flops: int
    saved: int
    milliseconds: float


def measure(
    channels: int = 96,
    sides: Sequence[int] = (14, 28, 56, 112),
    rounds: int = 7,
) -> dict[str, list[Cost]]:
    """Measures each mixer at each resolution.

    The mixers take turns in each round, and CPU time is measured, so that
    other work on the machine affects all of them equally. ``channels`` is a
    multiple of 32 (Swin-T's stage 1 has 96), ``sides`` are those of the square
    maps in positions, and ``rounds`` counts the timed passes of each mixer.
    """
    if channels < 1 or channels % GROUP:
        raise UserError(
            f'--channels {channels} is not a multiple of {GROUP}, the '
            'channels of a head or group.',
            'Use 96, 192, ...',
        )
    if min(sides) < 1 or rounds < 1:
        raise UserError('--sides and --rounds must be 1 or more.')
    torch.manual_seed(0)
    models = {
        name: mixer.build(channels).eval() for name, mixer in MIXERS.items()
    }
    costs: dict[str, list[Cost]] = {name: [] for name in MIXERS}
    for side in sides:
        x = torch.randn(1, channels, side, side)
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(rounds + 1):
            for name, model in models.items():
                start = time.process_time()
                with torch.no_grad():
                    model(x)
                seconds[name].append(time.process_time() - start)
        for name, model in models.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                model(x)
            own = MIXERS[name].uncounted * channels * side**2
            costs[name].append(
                Cost(
                    side,
                    sum(p.numel() for p in model.parameters()),
                    counter.get_total_flops() // 2 + own,
                    saved_bytes(model, x),
                    # The first round warms up.
                    1e3 * statistics.median(seconds[name][1:]),
                )
            )
    return costs


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Returns the bytes that a forward pass keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        # The result keeps the graph alive, and with it the storages.
        result = model(x.clone().requires_grad_())
    del result
    return sum(kept.values())


def cost_table(costs: dict[str, list[Cost]], channels: int) -> Table:
    """Returns the properties of each mixer and its costs."""
    sides = [cost.side for cost in next(iter(costs.values()))]
    header = ['mixer', 'weights shared by', 'weights from', 'mixing weights']
    header.append(f'params, C = {channels}')
    header += [f'{s}²: MFLOPs / MB / ms' for s in sides]
    rows = []
    for name, found in costs.items():
        mixer = MIXERS[name]
        cells = [
            f'{c.flops / 1e6:.1f} / {c.saved / 1e6:.1f} / {c.milliseconds:.1f}'
            for c in found
        ]
        source, params = mixer.dynamic or 'learned', f'{found[0].params:,}'
        rows.append(
            [name, mixer.shared, source, mixer.weights, params, *cells]
        )
    return Table(header, rows)


def draw(costs: dict[str, list[Cost]], path: str | Path) -> Path:
    """Draws FLOPs, memory and latency per position against resolution."""
    figure = new_figure(10.4, 3.6)
    panels = figure.subplots(1, 3)
    quantities = (
        ('multiply-adds per position (thousands)', lambda c: c.flops / 1e3),
        ('kept for backward, bytes per position', lambda c: c.saved),
        ('CPU time per position (µs)', lambda c: 1e3 * c.milliseconds),
    )
    for ax, (label, value) in zip(panels, quantities, strict=True):
        tidy(ax)
        for i, (name, found) in enumerate(costs.items()):
            ax.plot(
                [c.side for c in found],
                [value(c) / c.side**2 for c in found],
                color=color(i),
                # Larger and open below, so that equal costs show as well.
                marker=marker(i),
                markersize=3 + 1.5 * (len(costs) - i),
                markerfacecolor='none',
                label=name,
            )
        ax.set_xscale('log', base=2)
        sides = [c.side for c in next(iter(costs.values()))]
        ax.set_xticks(sides, sides)
        ax.set(xlabel='side of the map')
        ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        ax.set_title(label, fontsize=10)
    shared_legend(figure, panels, 'lower')
    return save(figure, path)
