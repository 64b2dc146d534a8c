# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures what a step adaptor and SE add to a plain ResNet.

    python benchmarks/stepnet_overhead.py [--size 320 480] [--rounds 15]

Models are timed in turn; each figure is the median over
rounds of the ratio to the plain ResNet of the same round. ``--cpu-time`` takes
the CPU time of the process, for a machine that others share. The training
step is forward, backward and SGD with BN in evaluation mode, as detectors run
a backbone; with ``--norm-train`` BN is in training mode.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.registry import MODELS

import mmext
from mmext.utils.timing import in_turn, ratio

PLUGIN = [{'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}]
VARIANTS = {
    'ResNet': {'type': 'mmdet.ResNet'},
    'SE': {'type': 'PluginResNet', 'plugins': PLUGIN},
    'StepNet': {'type': 'StepNetResNet'},
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depth', type=int, default=50)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--size', type=int, nargs=2, default=(320, 480))
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--cpu-time', action='store_true')
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--norm-train', action='store_true')
    parser.add_argument('--frozen-stages', type=int, default=-1)
    parser.add_argument('--out', type=Path, help='where to write JSON')
    return parser.parse_args()


def measure(
    work: dict[str, Callable[[], object]], args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Returns median times, and ratios to the first function."""
    times = in_turn(work, args.rounds, args.cpu_time, warm_up=2)
    base = next(iter(times.values()))
    return {
        name: {
            'ms': 1e3 * statistics.median(values),
            'ratio': ratio(values, base),
        }
        for name, values in times.items()
    }


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    device = 'cuda' if cuda else 'cpu'
    layout = (
        torch.channels_last if args.channels_last else torch.contiguous_format
    )
    x = torch.randn(args.batch, 3, *args.size, device=device)
    x = x.contiguous(memory_format=layout)
    models = {
        name: MODELS.build(
            {
                **cfg,
                'depth': args.depth,
                'norm_eval': not args.norm_train,
                'frozen_stages': args.frozen_stages,
            }
        ).to(device, memory_format=layout)
        for name, cfg in VARIANTS.items()
    }

    def infer(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model(x)

    def train(model: torch.nn.Module, sgd: torch.optim.Optimizer) -> None:
        sgd.zero_grad()
        sum(level.mean() for level in model(x)).backward()
        sgd.step()

    result = {
        'device': torch.cuda.get_device_name() if cuda else 'cpu',
        'torch': torch.__version__,
        'mmext': mmext.__version__,
        **{k: v for k, v in vars(args).items() if k != 'out'},
    }
    for model in models.values():
        model.eval()
    work = {name: partial(infer, m) for name, m in models.items()}
    result['inference'] = measure(work, args)
    report('inference', result['inference'])
    work = {}
    for name, model in models.items():
        model.train()  # mmdet's ResNet returns None from it
        sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        work[name] = partial(train, model, sgd)
    result['training step'] = measure(work, args)
    report('training step', result['training step'])
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + '\n')


def report(kind: str, rows: dict[str, dict[str, float]]) -> None:
    for name, row in rows.items():
        print(
            f'{kind:14} {name:8} {row["ms"]:8.1f} ms '
            f'{100 * (row["ratio"] - 1):+6.1f} %',
            flush=True,
        )


if __name__ == '__main__':
    main()
