# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares our backbones with others: time, memory, parameters, FLOPs.

    python benchmarks/backbones.py                   # every group
    python benchmarks/backbones.py starnet-s1 --rounds 20 --out out.json
    python benchmarks/backbones.py --list

All networks of a group, each in both memory formats, are timed in turn;
a ratio is the median over rounds of the ratios within a round.
``--cpu-time`` takes the CPU time of the process instead of the clock, best
with ``--threads 1``, for a machine that others share. A training step is
forward and backward, with norms in training mode. FLOPs are multiply-adds.
Memory is the peak above weights and input of one training step.

``--out`` writes each group on each input as soon as it is measured, and a
second run with the same file measures only what is missing. A table in
Markdown is written beside it.
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
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmext
from mmext.errors import UserError, command, did_you_mean
from mmext.models.layers.dynamic_depthwise_conv import HomogeneousDynamicConv
from mmext.utils.timing import in_turn, ratio

Build = Callable[[], nn.Module]
LEVELS = (0, 1, 2, 3)
INPUTS = {'8x3x224x224': (8, 3, 224, 224), '1x3x800x1216': (1, 3, 800, 1216)}
FORMATS = {
    'contiguous': torch.contiguous_format,
    'channels-last': torch.channels_last,
}
MODES = ('inference', 'training step')


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


def registered(kind: str, **cfg) -> Build:
    return lambda: MODELS.build({'type': kind, **cfg})


def resnet(depth: int) -> Build:
    return registered('mmdet.ResNet', depth=depth, norm_eval=False)


def starnet(arch: str, **peers: Build) -> tuple[dict, dict]:
    ours = {f'StarNet-{arch.upper()}': registered('StarNet', arch=arch)}
    return ours, {'timm': partial(timm_levels, f'starnet_{arch}'), **peers}


def gmlp(arch: str, name: str, **peers: Build) -> tuple[dict, dict]:
    ours = registered('GMLP', arch=arch, drop_path_rate=0.0)
    return {f'gMLP-{arch}': ours}, {TIMM_GMLP: partial(TimmTokens, name)} | {
        k.replace('_', '-'): v for k, v in peers.items()
    }


# It has weights for 14x14 tokens and supports no other number.
TIMM_GMLP = 'timm gMLP'
SWIN = registered('mmdet.SwinTransformer', drop_path_rate=0.0)
DWNET = partial(registered, 'DWNet', arch='tiny', drop_path_rate=0.0)
SE = [{'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}]
R50 = {'depth': 50, 'norm_eval': False}
# name: ours, theirs
GROUPS: dict[str, tuple[dict[str, Build], dict[str, Build]]] = {
    'starnet-s1': starnet('s1'),
    'starnet-s4': starnet('s4', **{'ResNet-18': resnet(18)}),
    'gmlp-small': gmlp('small', 'gmlp_s16_224', Swin_T=SWIN),
    'dwnet-tiny': (
        {
            'DWNet-T': DWNET(),
            'DWNet-T homogeneous': DWNET(dynamic='homogeneous'),
            'DWNet-T inhomogeneous': DWNET(dynamic='inhomogeneous'),
        },
        {'Swin-T': SWIN, 'ResNet-50': resnet(50)},
    ),
    'resnet-50': (
        {
            'PluginResNet-50': registered('PluginResNet', **R50),
            'SE-ResNet-50': registered('PluginResNet', plugins=SE, **R50),
            'StepNet-50': registered('StepNetResNet', **R50),
        },
        {'ResNet-50': resnet(50)},
    ),
    'starnet-s2': starnet('s2'),
    'starnet-s3': starnet('s3'),
    'starnet-s050': starnet('s050'),
    'starnet-s100': starnet('s100'),
    'starnet-s150': starnet('s150'),
    'gmlp-tiny': gmlp('tiny', 'gmlp_ti16_224'),
    'gmlp-base': gmlp('base', 'gmlp_b16_224'),
}


def members(group: str, size: str) -> tuple[dict, dict]:
    """Ours, and the peers that take this input."""
    ours, theirs = GROUPS[group]
    small = size.endswith('224x224')
    return ours, {k: v for k, v in theirs.items() if small or k != TIMM_GMLP}


def count_flops(build: Build, shape: tuple) -> int:
    """Multiply-adds of one forward pass, without computing it."""
    model = build().to('meta')
    model.eval()  # mmdet's networks return None from it
    counter = FlopCounterMode(display=False)
    with torch.device('meta'), torch.no_grad(), counter:
        model(torch.empty(shape))
    return counter.get_total_flops() // 2


def measure(builds: dict[str, Build], shape: tuple, args) -> dict:
    """Returns times in ms of each round, peak bytes, parameters, FLOPs."""
    cuda = torch.cuda.is_available()
    device = 'cuda' if cuda else 'cpu'
    cast = partial(torch.autocast, device, torch.bfloat16, enabled=args.amp)
    x = torch.rand(shape, device=device)
    runs, result = {}, {}
    for name, build in builds.items():
        result[name] = {
            'params': sum(p.numel() for p in build().parameters()),
            'flops': count_flops(build, (1, *shape[1:])),
        }
        for layout, memory_format in FORMATS.items():
            model = build().to(device, memory_format=memory_format)
            image = x.contiguous(memory_format=memory_format)
            runs[name, layout] = model, image
            result[name][layout] = {}

    def infer(model: nn.Module, image: Tensor) -> None:
        with torch.no_grad(), cast():
            model(image)

    def step(model: nn.Module, image: Tensor) -> None:
        with cast():
            loss = sum(level.float().mean() for level in model(image))
        loss.backward()
        model.zero_grad(set_to_none=True)

    for mode, run in zip(MODES, (infer, step), strict=True):
        work = {}
        for (name, layout), (model, image) in runs.items():
            model.train(run is step)
            if shape[0] == 1:  # one image has no variance of its means
                for module in model.modules():
                    if isinstance(module, HomogeneousDynamicConv):
                        module.eval()
            work[name, layout] = partial(run, model, image)
            if run is step:
                memory = peak_memory(work[name, layout], device)
                result[name][layout]['memory'] = memory
        times = in_turn(work, args.rounds, args.cpu_time)
        for (name, layout), taken in times.items():
            result[name][layout][mode] = [round(1e3 * t, 2) for t in taken]
    return result


def as_markdown(content: dict) -> str:
    """The tables, ratios first."""
    where = ', '.join(f'{k} {v}' for k, v in content['where'].items())
    lines = [
        '# Backbones beside their peers',
        '',
        f'`python benchmarks/backbones.py` ({where}). Two figures in a cell '
        'are contiguous · channels-last. Ratios are medians over rounds, '
        'times are medians; below 1 ours is faster. A training step is '
        'forward and backward, norms in training mode; memory is its peak '
        'above weights and input.',
        '',
        '| ours / theirs | input | inference | training step | memory '
        '| inference, ms: ours / theirs | step, ms: ours / theirs '
        '| memory, MiB: ours / theirs | params, M | FLOPs, G |',
        '|---' * 10 + '|',
    ]
    formats = ['| network | input | inference | training step |', '|---' * 4]
    formats[-1] += '|'
    seen = set()
    for row in content['rows']:
        result, size = row['networks'], row['input']
        ours, theirs = members(row['group'], size)
        for mine in ours:
            for peer in theirs:
                lines.append(_peers(mine, peer, size, result))
        for name in result:
            if (name, size) not in seen and name != 'timm':
                seen.add((name, size))
                both = (result[name][k] for k in FORMATS)
                a, b = both
                cells = (f'{ratio(a[m], b[m]):.2f}' for m in MODES)
                formats.append(f'| {name} | {size} | {" | ".join(cells)} |')
    lines += [
        '',
        '## Memory formats',
        '',
        "Contiguous over channels-last, of the same network's time: above 1 "
        'channels-last is faster.',
        '',
        *formats,
        '',
    ]
    return '\n'.join(lines)


def _peers(mine: str, peer: str, size: str, result: dict) -> str:
    a, b = result[mine], result[peer]
    cells = [f'{mine} / {peer}', size]
    cells += [
        ' · '.join(f'{ratio(a[k][mode], b[k][mode]):.2f}' for k in FORMATS)
        for mode in MODES
    ]
    cells.append(
        ' · '.join(f'{a[k]["memory"] / b[k]["memory"]:.2f}' for k in FORMATS)
    )
    for mode in MODES:
        cells.append(
            ' / '.join(
                ' · '.join(
                    f'{statistics.median(side[k][mode]):.0f}' for k in FORMATS
                )
                for side in (a, b)
            )
        )
    cells.append(
        ' / '.join(
            ' · '.join(f'{side[k]["memory"] / 2**20:.0f}' for k in FORMATS)
            for side in (a, b)
        )
    )
    for key, unit in (('params', 1e6), ('flops', 1e9)):
        cells.append(f'{a[key] / unit:.2f} / {b[key] / unit:.2f}')
    return '| ' + ' | '.join(cells) + ' |'


def selected(patterns: list[str]) -> list[str]:
    """Groups whose name begins like one of the patterns; all without any."""
    for pattern in patterns:
        if not any(name.startswith(pattern) for name in GROUPS):
            raise UserError(
                f'No group begins with {pattern!r}.',
                did_you_mean(pattern, GROUPS) or 'See --list.',
            )
    return [n for n in GROUPS if not patterns or n.startswith(tuple(patterns))]


def load(out: Path | None, where: dict) -> dict:
    """What an earlier run with the same settings left in the file."""
    if out is None or not out.exists():
        return {'where': where, 'rows': []}
    content = json.loads(out.read_text())
    if content['where'] != where:
        raise UserError(
            f'{out} was measured with {content["where"]}, not {where}.',
            'Name another file with --out.',
        )
    return content


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('groups', nargs='*', help='groups to run, by the start of their name')
    add('--list', action='store_true', help='print the names of all groups')
    add('--inputs', nargs='+', choices=INPUTS, default=list(INPUTS))
    add('--rounds', type=int, default=5)
    add('--threads', type=int, default=torch.get_num_threads())
    add('--cpu-time', action='store_true')
    add('--amp', action='store_true', help='autocast in bfloat16')
    add('--out', type=Path, help='JSON to write, or to complete')
    args = parser.parse_args()
    names = selected(args.groups)
    if args.list:
        print('\n'.join(names))
        return
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    where = {
        'device': torch.cuda.get_device_name() if cuda else 'CPU',
        'machine': platform.machine(),
        'threads': args.threads,
        'clock': 'CPU time' if args.cpu_time else 'wall',
        'rounds': args.rounds,
        'dtype': 'bfloat16 autocast' if args.amp else 'float32',
        'torch': torch.__version__,
        'mmext': mmext.__version__,
    }
    content = load(args.out, where)
    done = {(row['group'], row['input']) for row in content['rows']}
    for size in args.inputs:
        for name in names:
            ours, theirs = members(name, size)
            if (name, size) in done or not theirs:
                continue
            networks = measure({**ours, **theirs}, INPUTS[size], args)
            row = {'group': name, 'input': size, 'networks': networks}
            content['rows'].append(row)
            for mine in ours:
                for peer in theirs:
                    print(_peers(mine, peer, size, networks), flush=True)
            if args.out:
                args.out.write_text(json.dumps(content, indent=1) + '\n')
                table = args.out.with_suffix('.md')
                table.write_text(as_markdown(content))


if __name__ == '__main__':
    main()
