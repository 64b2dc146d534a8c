# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Small backbones, weights and a check for the tests of backbones.

The measurements are those of ``mmext check-backbone``; tests/checks/
test_backbone.py shows that each can fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from golden import golden_fill
from torch import Tensor, nn

from mmext.checks.backbone.measures import gradients, randomise
from mmext.models import GMLP, DemoNet, DWNet, StarNet


@dataclass(frozen=True)
class Case:
    """A small backbone and what its checks need.

    Attributes:
        build: Builds it, with changed arguments.
        smallest: Side of the smallest image that it takes.
        sizes: Image sizes.
        outputs: Values of ``out_indices``.
        subsets: Values of ``out_indices`` whose outputs are among all.
        frozen: Values of ``frozen_stages``.
        plain: Arguments with which outputs do not depend on
            ``out_indices``.
        trained: Arguments for the check of gradients.
        has_batch_norm: Whether there is any.
    """

    build: Callable[..., nn.Module]
    smallest: int = 32
    sizes: tuple = ((64, 96), (65, 97), (33, 190))
    outputs: tuple = ((0, 1, 2, 3), (2,), (0, 2), -1)
    subsets: tuple = ((0,), (1, 2), (3,))
    frozen: tuple = (0, 1, 4)
    plain: dict[str, Any] = field(default_factory=dict)
    trained: tuple = ({'drop_path_rate': 0.1},)
    has_batch_norm: bool = True


STARNET = {'embed_dims': 4, 'depths': (1, 2, 1, 1), 'mlp_ratio': 2}
DWNET = {
    'embed_dims': 8,
    'depths': (1, 2, 1, 1),
    'channels_per_group': (2, 4, 8, 2),
    'drop_path_rate': 0.0,
}
GMLP_ARCH = {
    'embed_dims': 8,
    'depth': 3,
    'mlp_ratio': 4,
    'drop_path_rate': 0.0,
}


def dwnet(**form: str) -> Case:
    return Case(
        partial(DWNet, DWNET, **form),
        trained=(
            {'drop_path_rate': 0.1},
            {'final_norm': True, 'out_indices': -1},
        ),
    )


isotropic = partial(
    Case,
    smallest=16,
    sizes=((64, 96), (65, 97), (16, 190)),
    outputs=((0, 1, 2), (1,), -1),
    subsets=((0,), (0, 1), (2,)),
    frozen=(0, 1, 3),
    plain={'final_norm': False},
    has_batch_norm=False,
)
CASES = {
    'StarNet': Case(
        partial(StarNet, STARNET),
        trained=({'drop_path_rate': 0.1, 'final_norm': True},),
    ),
    'DWNet': dwnet(),
    'DWNet-homogeneous': dwnet(dynamic='homogeneous'),
    'DWNet-inhomogeneous': dwnet(dynamic='inhomogeneous'),
    'DWNet-local_mlp': dwnet(token_mixer='local_mlp'),
    'GMLP': isotropic(
        partial(GMLP, GMLP_ARCH, out_indices=(0, 1, 2), window_size=3)
    ),
    'DemoNet': isotropic(
        partial(DemoNet, depth=3, embed_dims=8, out_indices=(0, 1, 2)),
        trained=(
            {'drop_path_rate': 0.1},
            {'drop_path_rate': 0.1, 'act_cfg': None},
        ),
    ),
}


def made_up_weights(path: Path) -> dict[str, Tensor]:
    """Returns a checkpoint with the keys and shapes of a key list."""
    shapes = json.loads(path.read_text())['state_dict']
    return {
        key: torch.full(shape, float(i)) if shape else torch.tensor(i)
        for i, (key, shape) in enumerate(shapes.items())
    }


def reference_weights(
    shared: Callable[[str], Path], name: str
) -> dict[str, Tensor]:
    """Returns the weights that the golden outputs of a network have."""
    keys = shared(f'facts/state_dict_keys/{name}.json')
    return golden_fill(made_up_weights(keys))


def class_scores(last: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Returns what a checkpoint's classifier makes of the last level."""
    pooled = last.mean((2, 3))
    return pooled @ weights['head.weight'].T + weights['head.bias']


def count_with_classifier(model: nn.Module) -> int:
    """Returns the number of parameters with the head of 1000 classes."""
    head = 1000 * (model.out_channels[-1] + 1)
    return sum(p.numel() for p in model.parameters()) + head


def check_gradients(model: nn.Module, x: Tensor) -> None:
    """Checks that every parameter gets a finite gradient that is not zero."""
    randomise(model).train()
    found = gradients(model, model(x))
    assert found.total
    assert (found.unused, found.infinite, found.zero) == ([], [], [])
