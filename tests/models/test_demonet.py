# Licensed under the Apache License, Version 2.0. See LICENSE.
"""DemoNet against the official formula and key names."""

from __future__ import annotations

import backbone_checks as checks
import pytest
import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear

from mmext.models import DemoNet

build = checks.CASES['DemoNet'].build


def awake(model: DemoNet) -> DemoNet:
    """Random weights, with a layer scale that is not near zero."""
    checks.randomise(model)
    for block in model.blocks:
        torch.nn.init.normal_(block.gamma)
    return model


@pytest.mark.parametrize('operation', ['star', 'sum'])
@pytest.mark.parametrize('act', [True, False])
def test_is_the_official_formula(operation: str, act: bool) -> None:
    """The forward pass written out with functions and official key names."""
    depth = 2
    model = awake(
        DemoNet(
            depth=depth,
            embed_dims=8,
            operation=operation,
            gap_before_final_norm=True,
            **({} if act else {'act_cfg': None}),
        )
    ).double()
    w = model.state_dict()
    x = torch.rand(2, 3, 48, 64, dtype=torch.float64)
    y = conv2d(x, w['stem.weight'], w['stem.bias'], 16).permute(0, 2, 3, 1)
    for i in range(depth):
        b = {
            k.removeprefix(f'blocks.{i}.'): v
            for k, v in w.items()
            if k.startswith(f'blocks.{i}.')
        }
        z = layer_norm(y, (8,), b['norm.weight'], b['norm.bias'])
        z = conv2d(
            z.permute(0, 3, 1, 2),
            b['dwconv.weight'],
            b['dwconv.bias'],
            padding=3,
            groups=8,
        ).permute(0, 2, 3, 1)
        z = linear(z, b['f.weight'], b['f.bias'])
        assert z.size(-1) == 48
        one, two = z[..., :24], z[..., 24:]
        one = gelu(one) if act else one
        z = one * two if operation == 'star' else one + two
        y = y + b['gamma'] * linear(z, b['g.weight'], b['g.bias'])
    y = layer_norm(y.mean((1, 2)), (8,), w['norm.weight'], w['norm.bias'])
    torch.testing.assert_close(model(x), (y,))


def test_sum_without_activation_is_linear_but_for_the_norm() -> None:
    """The paper's reason for the drop from 66.2 to 32.4 (table 4)."""
    for operation, is_linear in (('sum', True), ('star', False)):
        model = awake(build(operation=operation, act_cfg=None)).double()
        block = model.blocks[0]
        block.norm = torch.nn.Identity()
        a, b = torch.randn(2, 1, 5, 6, 8, dtype=torch.float64)
        zero = block(torch.zeros_like(a))
        left = block(a + b) - zero
        right = block(a) - zero + block(b) - zero
        assert torch.allclose(left, right) == is_linear


def test_parameter_count_is_the_formulas() -> None:
    for depth, c in ((12, 192), (12, 96), (20, 192)):
        with torch.device('meta'):
            model = DemoNet(depth=depth, embed_dims=c)
        block = 2 * c + 50 * c + (6 * c * c + 6 * c) + (3 * c * c + c) + c
        expected = (3 * 256 + 1) * c + depth * block + 2 * c
        assert sum(p.numel() for p in model.parameters()) == expected


def test_initial_weights() -> None:
    model = DemoNet(depth=1, embed_dims=64)
    model.init_weights()
    block = model.blocks[0]
    assert abs(block.f.weight.std() - 0.02) < 1e-3
    assert (block.f.bias == 0).all()
    assert (block.gamma == 1e-6).all()
