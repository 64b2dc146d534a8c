# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Our backbones beside their peers: time, memory, parameters, FLOPs.

    python benchmarks/backbones.py                   # every pair
    python benchmarks/backbones.py starnet-s1 --rounds 20 --out out.json
    python benchmarks/backbones.py --list

Both sides of a pair return the same levels and run in turn, round after
round, in one process; a ratio is the median over rounds of ours over theirs,
so that a busy machine slows both sides alike. ``--cpu-time`` takes the
process's CPU time instead of the clock, best with ``--threads 1``, for a
machine that others share. A training step is forward and backward, norms in
training mode. FLOPs are multiply-adds. Memory is the peak above weights and
input of one training step.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmext
from mmext.errors import UserError, command, did_you_mean

Work = dict[str, Callable[[], object]]
LEVELS = (0, 1, 2, 3)
INPUTS = {'1x3x800x1216': (1, 3, 800, 1216), '8x3x224x224': (8, 3, 224, 224)}
FORMATS = {
    'contiguous': torch.contiguous_format,
    'channels-last': torch.channels_last,
}


class TimmTokens(nn.Module):
    """timm's gMLP as a backbone: the map of the last block, normed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(name, num_classes=0)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        tokens = self.body.forward_features(x).transpose(1, 2)
        return (tokens.unflatten(2, (14, 14)),)


def timm_levels(name: str) -> nn.Module:
    """timm's network as a backbone of four levels."""
    import timm

    return timm.create_model(name, features_only=True, out_indices=LEVELS)


def ours(kind: str, **cfg) -> Callable[[], nn.Module]:
    return lambda: MODELS.build({'type': kind, **cfg})


def swin(**cfg) -> Callable[[], nn.Module]:
    return ours('mmdet.SwinTransformer', drop_path_rate=0.0, **cfg)


def resnet(depth: int) -> Callable[[], nn.Module]:
    return ours('mmdet.ResNet', depth=depth, norm_eval=False)


STATIC = {'arch': 'tiny', 'drop_path_rate': 0.0}
DWNETS = {
    'dwnet-t': ours('DWNet', **STATIC),
    'dwnet-t-homogeneous': ours('DWNet', dynamic='homogeneous', **STATIC),
    'dwnet-t-inhomogeneous': ours('DWNet', dynamic='inhomogeneous', **STATIC),
}
# name: ours, theirs
PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    **{
        f'starnet-{arch} / timm': (
            ours('StarNet', arch=arch),
            lambda arch=arch: timm_levels(f'starnet_{arch}'),
        )
        for arch in ('s1', 's2', 's3', 's4', 's050', 's100', 's150')
    },
    'starnet-s4 / resnet-18': (ours('StarNet', arch='s4'), resnet(18)),
    **{
        f'gmlp-{arch} / timm': (
            ours('GMLP', arch=arch, drop_path_rate=0.0),
            lambda name=name: TimmTokens(name),
        )
        for arch, name in (
            ('tiny', 'gmlp_ti16_224'),
            ('small', 'gmlp_s16_224'),
            ('base', 'gmlp_b16_224'),
        )
    },
    'gmlp-small / swin-t': (
        ours('GMLP', arch='small', drop_path_rate=0.0),
        swin(),
    ),
    **{
        f'{name} / {peer}': (build, other)
        for name, build in DWNETS.items()
        for peer, other in (('swin-t', swin()), ('resnet-50', resnet(50)))
    },
}


def compare(
    work: Work,
    rounds: int,
    clock: Callable[[], float],
    wait: Callable[[], object],
) -> tuple[float, dict[str, float]]:
    """Median ratio of the first to the second, and each one's median ms."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 1):
        # Either side goes first as often as the other.
        for name in sorted(work, reverse=i % 2 == 1):
            gc.collect()
            wait()
            start = clock()
            work[name]()
            wait()
            if i:  # the first round warms up
                times[name].append(clock() - start)
    mine, theirs = times.values()
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    return ratio, {n: 1e3 * statistics.median(t) for n, t in times.items()}


def peak_memory(step: Callable[[], object], cuda: bool) -> int:
    """Most bytes at once above what there was at the start."""
    if cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            most = max(most, held)
    return most


def count_flops(build: Callable[[], nn.Module], shape: tuple) -> int:
    """Multiply-adds of one forward pass, without computing it."""
    model = build().to('meta')
    model.eval()  # mmdet's networks return None from it
    counter = FlopCounterMode(display=False)
    with torch.device('meta'), torch.no_grad(), counter:
        model(torch.empty(shape))
    return counter.get_total_flops() // 2


def run_pair(
    name: str, shape: tuple, layout: torch.memory_format, args
) -> dict:
    """All measurements of one pair on one input in one memory format."""
    cuda = torch.cuda.is_available()
    device = 'cuda' if cuda else 'cpu'
    wait = torch.cuda.synchronize if cuda else lambda: None
    clock = time.process_time if args.cpu_time else time.perf_counter
    x = torch.rand(shape, device=device).contiguous(memory_format=layout)
    builds = dict(zip(('ours', 'theirs'), PAIRS[name], strict=True))
    models = {
        side: build().to(device, memory_format=layout)
        for side, build in builds.items()
    }

    def infer(model: nn.Module) -> None:
        with torch.no_grad():
            model(x)

    def step(model: nn.Module) -> None:
        sum(level.mean() for level in model(x)).backward()
        model.zero_grad(set_to_none=True)

    result = {}
    for model in models.values():
        model.eval()
    result['inference'] = compare(
        {side: lambda m=m: infer(m) for side, m in models.items()},
        args.rounds,
        clock,
        wait,
    )
    for model in models.values():
        model.train()
    result['training step'] = compare(
        {side: lambda m=m: step(m) for side, m in models.items()},
        args.rounds,
        clock,
        wait,
    )
    memory = {
        side: peak_memory(lambda m=m: step(m), cuda)
        for side, m in models.items()
    }
    result['memory'] = memory['ours'] / memory['theirs'], memory
    result['params'] = {
        side: sum(p.numel() for p in m.parameters())
        for side, m in models.items()
    }
    result['flops'] = {
        side: count_flops(build, (1, *shape[1:]))
        for side, build in builds.items()
    }
    return result


def as_row(name: str, size: str, layout: str, result: dict) -> str:
    """One line of the Markdown table, ratios first."""
    (fwd, fwd_ms), (step, step_ms) = (
        result['inference'],
        result['training step'],
    )
    memory, bytes_ = result['memory']
    cells = [
        name,
        size,
        layout,
        f'{fwd:.2f}',
        f'{step:.2f}',
        f'{memory:.2f}',
        *(
            f'{ms["ours"]:.0f} / {ms["theirs"]:.0f}'
            for ms in (fwd_ms, step_ms)
        ),
        f'{bytes_["ours"] / 2**20:.0f} / {bytes_["theirs"] / 2**20:.0f}',
    ]
    for key, unit in (('params', 1e6), ('flops', 1e9)):
        a, b = result[key]['ours'] / unit, result[key]['theirs'] / unit
        cells.append(f'{a:.2f} / {b:.2f}')
    return '| ' + ' | '.join(cells) + ' |'


HEAD = (
    '| ours / theirs | input | format | inference | training step | memory '
    '| inference, ms | step, ms | memory, MiB | params, M | FLOPs, G |\n'
    + '|---' * 11
    + '|'
)


def selected(patterns: list[str]) -> list[str]:
    """Pairs whose name begins like one of the patterns; all without any."""
    for pattern in patterns:
        if not any(name.startswith(pattern) for name in PAIRS):
            raise UserError(
                f'No pair begins with {pattern!r}.',
                did_you_mean(pattern, PAIRS) or 'See --list.',
            )
    return [n for n in PAIRS if not patterns or n.startswith(tuple(patterns))]


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('pairs', nargs='*', help='pairs to run, by the start of their name')
    add('--list', action='store_true', help='print the names of all pairs')
    add('--inputs', nargs='+', choices=INPUTS, default=list(INPUTS))
    add('--formats', nargs='+', choices=FORMATS, default=list(FORMATS))
    add('--rounds', type=int, default=5)
    add('--threads', type=int, default=torch.get_num_threads())
    add('--cpu-time', action='store_true')
    add('--out', type=Path, help='JSON to write')
    args = parser.parse_args()
    names = selected(args.pairs)
    if args.list:
        print('\n'.join(names))
        return
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    where = {
        'device': torch.cuda.get_device_name() if cuda else 'cpu',
        'machine': platform.machine(),
        'threads': args.threads,
        'clock': 'cpu time' if args.cpu_time else 'wall',
        'rounds': args.rounds,
        'torch': torch.__version__,
        'mmext': mmext.__version__,
    }
    print(', '.join(f'{k} {v}' for k, v in where.items()), f'\n\n{HEAD}')
    rows = []
    for name in names:
        for size in args.inputs:
            # timm's gMLP has weights for 14x14 tokens and takes no others.
            if (
                name.startswith('gmlp')
                and 'timm' in name
                and '224' not in size
            ):
                continue
            for layout in args.formats:
                result = run_pair(name, INPUTS[size], FORMATS[layout], args)
                rows.append(
                    {'pair': name, 'input': size, 'format': layout, **result}
                )
                print(as_row(name, size, layout, result), flush=True)
    if args.out:
        content = {**where, 'rows': rows}
        args.out.write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
