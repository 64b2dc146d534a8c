# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What an orthogonality term adds to a training step of ResNet-50.

    python benchmarks/orthogonality_overhead.py [--out FILE.json]

Forward and backward of the backbone alone, with the hook's default layers,
the 3x3 convolutions of the last two stages: a detector's neck and heads only
make the share smaller. Plain and regularised steps run in turn and CPU time
of one thread is taken; a ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope

import mmext
from mmext.errors import command
from mmext.regularizers import OrthogonalityHook

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

    def forward(self, inputs, data_samples=None, mode='loss'):
        levels = self.backbone(inputs)
        return {'loss': sum(level.square().mean() for level in levels)}


def step_seconds(
    model: Backbone, images: torch.Tensor, hook: OrthogonalityHook | None
) -> float:
    """CPU time of one forward and backward pass."""
    model.zero_grad()
    start = time.process_time()
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    if hook:
        hook.before_train_iter(runner, 0)
    sum(model(images, mode='loss').values()).backward()
    if hook:
        hook.after_train_iter(runner, 0)
    return time.process_time() - start


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
    hooks = {}
    for term in args.terms:
        hooks[term] = OrthogonalityHook({'type': term}, LAYERS)
        hooks[term].before_train(SimpleNamespace(model=model))
    step_seconds(model, images, None)
    ratios = {term: [] for term in hooks}
    plain = []
    for _ in range(args.rounds):
        base = step_seconds(model, images, None)
        plain.append(base)
        for term, hook in hooks.items():
            ratios[term].append(step_seconds(model, images, hook) / base)
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
