# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures what an orthogonality term adds to a training step of ResNet-50.

    python benchmarks/orthogonality_overhead.py [--out FILE.json]

A step is forward and backward of the backbone only, with the term on the 3x3
convolutions of the last two stages; with a neck and heads the share would be
smaller. Plain and regularised steps run in turn, and their
CPU time in one thread is taken; a ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

import mmext
from mmext.errors import command
from mmext.regularizers import OrthogonalityHook
from mmext.utils.timing import in_turn

LAYERS = 'backbone.layer[34].*conv2'
TERMS = (
    'SelfOrthogonality',
    'SoftOrthogonality',
    'DoubleSoftOrthogonality',
    'MutualCoherence',
    'SRIP',
    'OCNN',
)


class Backbone(BaseModel):
    """ResNet-50 whose loss is the mean of its levels."""

    def __init__(self) -> None:
        super().__init__()
        init_default_scope('mmdet')
        self.backbone = MODELS.build(
            {'type': 'ResNet', 'depth': 50, 'norm_eval': True}
        )

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = 'loss'
    ) -> dict[str, Tensor]:
        levels = self.backbone(inputs)
        return {'loss': sum(level.square().mean() for level in levels)}


def step(
    model: Backbone, images: Tensor, hook: OrthogonalityHook | None
) -> None:
    """Runs one forward and backward pass."""
    model.zero_grad()
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    if hook:
        hook.before_train_iter(runner, 0)
    sum(model(images, mode='loss').values()).backward()
    if hook:
        hook.after_train_iter(runner, 0)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--size', type=int, nargs=2, default=[320, 480])
    parser.add_argument('--terms', nargs='+', default=TERMS, choices=TERMS)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Backbone().train()
    images = torch.randn(args.batch, 3, *args.size)
    work = {'plain': partial(step, model, images, None)}
    for term in args.terms:
        hook = OrthogonalityHook({'type': term}, LAYERS)
        hook.before_train(SimpleNamespace(model=model))
        work[term] = partial(step, model, images, hook)
    times = in_turn(work, args.rounds, cpu_time=True)
    plain = times.pop('plain')
    ratios = {
        term: [a / b for a, b in zip(values, plain, strict=True)]
        for term, values in times.items()
    }
    result = {
        'mmext': mmext.__version__,
        'torch': torch.__version__,
        'machine': platform.machine(),
        'input': [args.batch, 3, *args.size],
        'layers': LAYERS,
        'rounds': args.rounds,
        'plain_step_cpu_seconds': round(statistics.median(plain), 3),
        'step_over_plain': {
            term: {
                'median': round(statistics.median(values), 4),
                'all': [round(v, 4) for v in values],
            }
            for term, values in ratios.items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
