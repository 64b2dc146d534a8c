# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The inhomogeneous depth-wise convolution beside one that unfolds its input.

    python benchmarks/inhomogeneous_conv.py [--sizes 96x50x76 ...] [--rounds 5]

Both are timed in turn in one process, so that a busy machine slows both; a
figure is the median over rounds of the ratio of the same round. Time is of
the forward pass, and of forward and backward; memory is the peak of a
training step above its inputs, over input + weights + output. ``--cpu-time``
takes the process's CPU time instead of the clock, for a machine that others
share. The result kept in ``benchmarks/results`` says where it was taken.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import mmext  # noqa: F401
from mmext.models.layers import inhomogeneous_depthwise_conv

# Channels x height x width: a detector's stages at 800x1216, the first ones
# of which an unfolded copy fills with gigabytes, and ImageNet's first.
SIZES = ('96x200x304', '192x100x152', '384x50x76', '768x25x38', '96x56x56')
GROUPS = 32
TAPS = 49


def unfolded(x: Tensor, weight: Tensor) -> Tensor:
    """The same sum over an unfolded copy of the input."""
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


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Most bytes allocated at once above what there was before."""
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True
    ) as profile:
        run()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            most = max(most, held)
    return most


def measure(size: str, args: argparse.Namespace) -> dict:
    x, weight = inputs(size, args.device)
    clock = time.process_time if args.cpu_time else time.perf_counter

    def seconds(run: Callable[[], object]) -> float:
        start = clock()
        run()
        if args.device != 'cpu':
            torch.cuda.synchronize()
        return clock() - start

    def forward(conv: Callable) -> None:
        with torch.no_grad():
            conv(x, weight)

    times = {(n, p): [] for n in PEERS for p in ('forward', 'step')}
    for i in range(args.rounds + 1):
        for name, conv in PEERS.items():
            passes = {
                'forward': seconds(lambda c=conv: forward(c)),
                'step': seconds(lambda c=conv: step(c, x, weight)),
            }
            for kind, taken in passes.items():
                times[name, kind] += [taken] if i else []
    # Input, weights and output: the output is as large as the input.
    total = 2 * x.nbytes + weight.nbytes
    row = {'size': size}
    for kind in ('forward', 'step'):
        ours, theirs = times['mmext', kind], times['unfold', kind]
        row[f'{kind}_ratio'] = statistics.median(
            b / a for a, b in zip(ours, theirs, strict=True)
        )
        row[f'{kind}_ms'] = 1000 * statistics.median(ours)
        row[f'{kind}_unfold_ms'] = 1000 * statistics.median(theirs)
    for name, conv in PEERS.items():
        held = peak_memory(lambda c=conv: step(c, x, weight), args.device)
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
