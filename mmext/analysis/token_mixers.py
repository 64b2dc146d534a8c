# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Local attention and depth-wise convolution at equal size.

"On the Connection between Local Attention and Dynamic Depth-wise Convolution"
(Han et al., ICLR 2022) compares ways to mix the positions of a feature map by
connectivity, sharing of weights and whether the weights depend on the input
(its Table 1). Here each is measured as the block that stands in a network:
with the 1x1 layers before and after it.
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

from mmext.models.backbones.dwnet import ConvMixer
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.local_mlp import LocalMLP

from .figures import COLORS, new_figure, save, tidy

WINDOW = 7
GROUP = 32  # channels of a head or of a group that shares weights
BN = {'type': 'BN'}


class WindowAttention(nn.Module):
    """mmdet's window attention on maps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = ShiftWindowMSA(channels, channels // GROUP, WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.attn(tokens, tuple(shape[2:]))
        return tokens.transpose(1, 2).reshape(shape)


def depthwise(channels: int) -> nn.Module:
    """The static 7x7 depth-wise convolution of DWNet."""
    pad = WINDOW // 2
    return nn.Conv2d(channels, channels, WINDOW, padding=pad, groups=channels)


@dataclass(frozen=True)
class Mixer:
    """One way to mix positions, and what the paper's Table 1 says of it.

    Attributes:
        build: From the channels to the block's module.
        shared: What shares its weights.
        dynamic: What the weights are computed from; '' where learned.
        weights: Mixing weights of one image of n positions, C channels.
        uncounted: Multiply-adds a position and channel of an own op that
            PyTorch's counter does not see.
    """

    build: Callable[[int], nn.Module]
    shared: str
    dynamic: str
    weights: str
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
        lambda c: ConvMixer(c, depthwise(c), BN), 'positions', '', '49 C'
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
    """What one mixer costs at one resolution.

    Attributes:
        side: Of the square map, in positions.
        params: Learned numbers.
        flops: Multiply-adds of one map.
        saved: Bytes kept for the backward pass, parameters not counted.
        milliseconds: CPU time of a forward pass, median over rounds.
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
    batch: int = 1,
) -> dict[str, list[Cost]]:
    """Measures every mixer at every resolution.

    Mixers run in turn, round after round, and CPU time is taken instead of
    the clock, so that other work on the machine slows all alike.

    Args:
        channels: C, a multiple of 32. Default: 96, Swin-T's first stage.
        sides: Of the square maps.
        rounds: Timed passes of each.
        batch: Maps in a pass.
    """
    torch.manual_seed(0)
    models = {
        name: mixer.build(channels).eval() for name, mixer in MIXERS.items()
    }
    costs: dict[str, list[Cost]] = {name: [] for name in MIXERS}
    for side in sides:
        x = torch.randn(batch, channels, side, side)
        seconds = _times(models, x, rounds)
        for name, model in models.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                model(x[:1])
            own = MIXERS[name].uncounted * channels * side**2
            costs[name].append(
                Cost(
                    side,
                    sum(p.numel() for p in model.parameters()),
                    counter.get_total_flops() // 2 + own,
                    saved_bytes(model, x) // batch,
                    1e3 * statistics.median(seconds[name]) / batch,
                )
            )
    return costs


@torch.no_grad()
def _times(
    models: dict[str, nn.Module], x: Tensor, rounds: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model(x)
            if i:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return seconds


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        # The result keeps the graph, and so the storages, alive.
        result = model(x.clone().requires_grad_())
    del result
    return sum(kept.values())


def cost_table(costs: dict[str, list[Cost]], channels: int) -> str:
    """Markdown: what each mixer is, and its costs at each resolution."""
    sides = [cost.side for cost in next(iter(costs.values()))]
    head = ['mixer', 'weights shared by', 'weights from', 'mixing weights']
    head += [f'params, C = {channels}']
    head += [f'{s}²: MFLOPs / MB / ms' for s in sides]
    lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
    for name, found in costs.items():
        mixer = MIXERS[name]
        cells = [
            name,
            mixer.shared,
            mixer.dynamic or 'learned',
            mixer.weights,
            f'{found[0].params:,}',
        ]
        cells += [
            f'{c.flops / 1e6:.1f} / {c.saved / 1e6:.1f} / {c.milliseconds:.1f}'
            for c in found
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(costs: dict[str, list[Cost]], path: str | Path) -> Path:
    """FLOPs, memory and latency a position, against resolution."""
    figure = new_figure(10.4, 3.6)
    panels = figure.subplots(1, 3)
    quantities = (
        ('multiply-adds a position (thousands)', lambda c: c.flops / 1e3),
        ('kept for backward, bytes a position', lambda c: c.saved),
        ('CPU time a position (µs)', lambda c: 1e3 * c.milliseconds),
    )
    for ax, (label, value) in zip(panels, quantities, strict=True):
        tidy(ax)
        for color, (name, found) in zip(COLORS, costs.items(), strict=False):
            ax.plot(
                [c.side for c in found],
                [value(c) / c.side**2 for c in found],
                color=color,
                marker='o',
                markersize=4,
                label=name,
            )
        ax.set_xscale('log', base=2)
        sides = [c.side for c in next(iter(costs.values()))]
        ax.set_xticks(sides, sides)
        ax.set_xlabel('side of the map')
        ax.set_title(label, fontsize=10)
        ax.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=5, frameon=False
    )
    return save(figure, path)
