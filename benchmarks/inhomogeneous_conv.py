# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the inhomogeneous convolution with one that unfolds its input.

    python benchmarks/inhomogeneous_conv.py [--sizes 96x50x76 ...] [--rounds 5]

Both are timed in turn; a figure is the median over rounds
of the ratio of the same round. Time is of the forward pass, and of forward and
backward; memory is the peak of a training step above its inputs, over
input + weights + output. ``--cpu-time`` takes the CPU time of the process
instead of the clock, for a machine that others share.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from memory import peak_memory
from torch import Tensor
from torch.nn import functional

import mmext  # noqa: F401
from mmext.models.layers.inhomogeneous_conv import inhomogeneous_depthwise_conv
from mmext.utils.timing import in_turn, ratio

# Channels x height x width: the stages of a detector at 800x1216, where an
# unfolded copy of the first needs gigabytes, and the first of ImageNet.
SIZES = ('96x200x304', '192x100x152', '384x50x76', '768x25x38', '96x56x56')
GROUPS = 32
TAPS = 49


def unfolded(x: Tensor, weight: Tensor) -> Tensor:
    """Returns the same sum over an unfolded copy of the input."""
    batch, channels, height, width = x.shape
    patches = functional.unfold(x, 7, padding=3).view(
        batch, GROUPS, channels // GROUPS, TAPS, height, width
    )
    return (patches * weight.unsqueeze(2)).sum(3).flatten(1, 2)


PEERS = {'mmext': inhomogeneous_depthwise_conv, 'unfold': unfolded}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', default=SIZES)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--cpu-time', action='store_true')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path, help='where to write JSON')
    return parser.parse_args()


def inputs(size: str, device: str) -> tuple[Tensor, Tensor]:
    channels, height, width = map(int, size.split('x'))
    x = torch.rand(1, channels, height, width, device=device)
    weight = torch.rand(1, GROUPS, TAPS, height, width, device=device)
    return x.requires_grad_(), weight.requires_grad_()


def step(conv: Callable, x: Tensor, weight: Tensor) -> None:
    out = conv(x, weight)
    torch.autograd.grad(out, (x, weight), torch.ones_like(out))


def measure(size: str, args: argparse.Namespace) -> dict:
    x, weight = inputs(size, args.device)

    def forward(conv: Callable) -> None:
        with torch.no_grad():
            conv(x, weight)

    work = {}
    for name, conv in PEERS.items():
        work[name, 'forward'] = partial(forward, conv)
        work[name, 'step'] = partial(step, conv, x, weight)
    times = in_turn(work, args.rounds, args.cpu_time)
    # Input, weights and output: the output is as large as the input.
    total = 2 * x.nbytes + weight.nbytes
    row = {'size': size}
    for kind in ('forward', 'step'):
        ours, theirs = times['mmext', kind], times['unfold', kind]
        row[f'{kind}_ratio'] = ratio(theirs, ours)
        row[f'{kind}_ms'] = 1000 * statistics.median(ours)
        row[f'{kind}_unfold_ms'] = 1000 * statistics.median(theirs)
    for name in PEERS:
        held = peak_memory(work[name, 'step'], args.device)
        row[f'memory_{name}'] = (x.nbytes + weight.nbytes + held) / total
    return row


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    where = (
        torch.cuda.get_device_name()
        if args.device != 'cpu'
        else f'{platform.machine()} CPU, {args.threads} thread(s)'
    )
    clock = 'CPU time' if args.cpu_time else 'wall clock'
    print(f'{where}, {clock}, torch {torch.__version__}')
    print(
        'unfold over mmext: forward, step | peak of a step, in inputs+output'
    )
    rows = []
    for size in args.sizes:
        row = measure(size, args)
        rows.append(row)
        ratios = f'{row["forward_ratio"]:5.1f}x {row["step_ratio"]:5.1f}x'
        taken = f'{row["forward_ms"]:.0f}, {row["step_ms"]:.0f} ms'
        held = f'{row["memory_mmext"]:.2f} against {row["memory_unfold"]:.2f}'
        print(f'{size:>12}  {ratios} ({taken}) | {held}', flush=True)
    if args.out:
        content = {'where': where, 'clock': clock, 'rows': rows}
        args.out.write_text(json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
    main()
