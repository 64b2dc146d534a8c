# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures all backbones of mmext, and twenty of timm, in one table.

    python benchmarks/backbone_table.py                       # what is missing
    python benchmarks/backbone_table.py --latency
    python benchmarks/backbone_table.py --accuracy results-imagenet.csv

Weights are random. FLOPs are multiply-adds. Memory is the peak of a training
step of one image above weights and input, norms in evaluation mode. Stiffness
is the mean of TNS over four images of noise, after noise was added to weights
that start at 0. With ``--latency``, all backbones are timed in turn, and the
ratio to ResNet-50 is the median over rounds of the ratios within a round: wait
until nothing else runs. ``--accuracy`` takes the file of that name in
``results/`` of timm's repository, and draws accuracy against latency.

Results are kept in results/backbone_table.json, so that a run that was stopped
goes on; results/backbone_table.md is written at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from functools import partial
from pathlib import Path

import timm
import torch
from backbones import Build, count_flops, registered, resnet
from matplotlib.backends.backend_agg import FigureCanvasAgg
from memory import peak_memory
from torch import Tensor, nn

from mmext.analysis.stiffness import measure
from mmext.checks.backbone.measures import loss_of, randomise, set_statistics
from mmext.errors import UserError, command
from mmext.utils.figures import color, new_figure, save, tidy
from mmext.utils.files import write_json
from mmext.utils.timing import in_turn, ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'backbone_table.json'
PICTURE = ROOT / 'docs' / 'images' / 'backbone_latency.png'
SHAPE = (1, 3, 320, 480)
#: Images of noise for stiffness.
NOISE = (4, 3, 128, 192)
ROUNDS = 5
BASELINE = 'ResNet-50'
ATTENTION = ('SE', 'ECA', 'FCA', 'SRM')
TIMM = (
    'resnet18',
    'resnet50',
    'resnext50_32x4d',
    'regnety_008',
    'hrnet_w18',
    'mobilenetv3_large_100',
    'mobilenetv4_conv_small',
    'mobilenetv4_conv_medium',
    'efficientnet_b0',
    'tf_efficientnetv2_b0',
    'convnext_tiny',
    'convnextv2_nano',
    'repvit_m1',
    'mobileone_s1',
    'fastvit_t8',
    'edgenext_small',
    'tiny_vit_5m_224',
    'swin_tiny_patch4_window7_224',
    'vit_small_patch16_224',
    'vit_small_patch16_dinov3',
)

#: Backbones of ours whose weights timm publishes.
IN_TIMM = {
    'StarNet-s1': 'starnet_s1',
    'StarNet-s2': 'starnet_s2',
    'StarNet-s3': 'starnet_s3',
    'StarNet-s4': 'starnet_s4',
    'gMLP-small': 'gmlp_s16_224',
}


def ours() -> dict[str, Build]:
    """Returns how to build each backbone of mmext, without drop path."""
    builds = {BASELINE: resnet(50)}
    for kind in ATTENTION:
        plugin = {'cfg': {'type': f'{kind}Attention'}}
        plugin['position'] = 'after_conv3'
        builds[f'{kind}-ResNet-50'] = registered(
            'PluginResNet', depth=50, norm_eval=False, plugins=[plugin]
        )
    for depth in (50, 101):
        builds[f'StepNet-{depth}'] = registered(
            'StepNetResNet', depth=depth, norm_eval=False
        )
    for arch in ('s050', 's100', 's150', 's1', 's2', 's3', 's4'):
        builds[f'StarNet-{arch}'] = registered('StarNet', arch=arch)
    builds['DemoNet-d12-w192'] = registered('DemoNet')
    for arch in ('tiny', 'base'):
        for dynamic in (None, 'homogeneous', 'inhomogeneous'):
            builds[f'DWNet-{arch}' + (f' {dynamic}' if dynamic else '')] = (
                registered(
                    'DWNet', arch=arch, dynamic=dynamic, drop_path_rate=0.0
                )
            )
    for arch in ('tiny', 'small', 'base'):
        builds[f'gMLP-{arch}'] = registered(
            'GMLP', arch=arch, drop_path_rate=0.0
        )
    return builds


def step(model: nn.Module, x: Tensor) -> None:
    loss_of(model(x)).backward()
    model.zero_grad(set_to_none=True)


def infer(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def row_of(build: Build) -> dict[str, float | None]:
    """Returns parameters, FLOPs, bytes and stiffness of a backbone."""
    torch.manual_seed(0)
    model = build()
    row = {
        'parameters': sum(p.numel() for p in model.parameters()),
        'flops': count_flops(build, SHAPE),
        'stiffness': None,
    }
    # Norms use their statistics: one image has no variance of its means.
    model.eval()
    row['memory'] = peak_memory(partial(step, model, torch.rand(SHAPE)), 'cpu')
    images = torch.rand(NOISE)
    set_statistics(randomise(model), images)
    try:
        row['stiffness'] = measure(model, [images]).tns
    except UserError as error:  # it has no stages of residual blocks
        print(error)
    return row


def latencies(builds: dict[str, Build]) -> dict[str, float]:
    """Returns the time of each backbone over that of ResNet-50."""
    x = torch.rand(SHAPE)
    work = {}
    for name, build in builds.items():
        model = build()
        model.eval()
        work[name] = partial(infer, model, x)
    times = in_turn(work, ROUNDS)
    return {name: ratio(t, times[BASELINE]) for name, t in times.items()}


def accuracies(file: Path) -> dict[str, float]:
    """Returns the top-1 of timm's default weights of each backbone."""
    with file.open(newline='') as lines:
        rows = [*csv.DictReader(lines)]
    # One row for each image size, the best first.
    top1 = {row['model']: row['top1'] for row in reversed(rows)}
    models = {f'timm {name}': name for name in TIMM} | IN_TIMM
    found = {}
    for backbone, name in models.items():
        config = timm.get_pretrained_cfg(name)
        if value := top1.get(f'{name}.{config.tag}'):
            found[backbone] = float(value)
    return found


def draw(rows: dict[str, dict], file: Path) -> None:
    """Draws accuracy, published by timm, against the measured latency."""
    figure = new_figure(9, 6)
    ax = figure.subplots()
    tidy(ax)
    shown = {n: r for n, r in rows.items() if {'top-1', 'latency'} <= r.keys()}
    for name, row in shown.items():
        shade = color(0 if name.startswith('timm ') else 1)
        ax.plot(row['latency'], row['top-1'], 'o', color=shade)
    ax.set_xscale('log')
    ax.set_xticks([0.1, 0.2, 0.5, 1, 2], ['0.1', '0.2', '0.5', '1', '2'])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.1, 3)
    ax.set_xlabel(f'Time of {SHAPE[2]}x{SHAPE[3]} pixels / ResNet-50')
    ax.set_ylabel('ImageNet top-1 (published by timm), %')
    ax.plot([], [], 'o', color=color(1), label='of mmext')
    ax.plot([], [], 'o', color=color(0), label='of timm')
    ax.legend(loc='lower right', frameon=False)
    figure.draw_without_rendering()  # places the axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    taken: list = []
    for name, row in shown.items():
        label = ax.annotate(
            name.removeprefix('timm ').removesuffix('_patch4_window7_224'),
            (row['latency'], row['top-1']),
            xytext=(5, -2),
            textcoords='offset points',
            fontsize=7,
        )
        # The first place that no other label has.
        for x, y, side in (
            (5, -2, 'left'),
            (-5, -2, 'right'),
            (0, 6, 'center'),
            (0, -11, 'center'),
        ):
            label.set(position=(x, y), ha=side)
            box = label.get_window_extent(renderer)
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
    save(figure, file)


def page(content: dict) -> str:
    """Returns the table."""
    rows = content['rows']
    note = 'Latency is not measured.'
    if 'load' in content:
        note = (
            f'Latency: {ROUNDS} rounds on one thread, load '
            f'{content["load"]:.1f} before.'
        )
        if content['load'] > 1.5:
            note += ' Others used the cores: differences of 10 % are noise.'
    if not any('top-1' in row for row in rows.values()):
        note += (
            " Accuracy is left out: timm's package does not have its results."
        )
    lines = [
        '# All backbones',
        '',
        f'`python benchmarks/backbone_table.py`, one image of {SHAPE[2]}x'
        f'{SHAPE[3]} pixels, random weights, float32 (torch '
        f'{content["torch"]}). FLOPs are multiply-adds, memory is the peak of '
        'a training step (norms in evaluation mode) above weights and input, '
        '[stiffness](../../docs/stiffness.md) is TNS of noise through random '
        'weights: small where residual branches start near 0, missing where '
        'there are no stages of residual blocks or numbers overflow. '
        'Latency is relative to ResNet-50. Top-1 is that of ImageNet-1k which '
        'timm publishes for its '
        f'default weights (some saw more data) at the best image size. {note}',
        '',
        '| backbone | parameters, M | FLOPs, G | memory, MiB | stiffness '
        '| latency | top-1 |',
        '|---' * 7 + '|',
    ]
    for name, row in rows.items():
        stiff = row['stiffness']
        cells = [
            name,
            f'{row["parameters"] / 1e6:.2f}',
            f'{row["flops"] / 1e9:.2f}',
            f'{row["memory"] / 2**20:.0f}',
            '-' if stiff is None else f'{stiff:.3g}',
            f'{row["latency"]:.2f}' if 'latency' in row else '-',
            f'{row["top-1"]:.1f}' if 'top-1' in row else '-',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    if PICTURE.exists():
        path = os.path.relpath(PICTURE, RESULTS.parent)
        lines += ['', f'![Accuracy against latency]({path})']
    return '\n'.join([*lines, ''])


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--latency', action='store_true')
    parser.add_argument('--accuracy', type=Path, help="timm's CSV file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    builds = ours()
    for name in TIMM:
        builds[f'timm {name}'] = registered('TimmBackbone', name=name)
    content = {'torch': torch.__version__, 'rows': {}}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    rows = content['rows']
    for i, (name, build) in enumerate(builds.items(), 1):
        if name not in rows:
            rows[name] = row_of(build)
            write_json(RESULTS, content)
            print(f'{i}/{len(builds)} {name}: {rows[name]}', flush=True)
    if args.latency:
        content['load'] = os.getloadavg()[0]
        for name, value in latencies(builds).items():
            rows[name]['latency'] = value
    if args.accuracy:
        for name, value in accuracies(args.accuracy).items():
            rows[name]['top-1'] = value
    write_json(RESULTS, content)
    if any({'top-1', 'latency'} <= row.keys() for row in rows.values()):
        draw(rows, PICTURE)
    RESULTS.with_suffix('.md').write_text(page(content))


if __name__ == '__main__':
    main()
