# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The pyramid of one map, and its layer norm."""

from __future__ import annotations

import math

import pytest
import torch
from backbone_checks import check_gradients
from torch import nn

from mmext.errors import UserError
from mmext.models import GMLP, LayerNorm2d, SimpleFeaturePyramid


@pytest.mark.parametrize('size', [(4, 6), (7, 3), (1, 1)])
@pytest.mark.parametrize('num_outs', [4, 5, 6])
def test_levels(size: tuple[int, int], num_outs: int) -> None:
    neck = SimpleFeaturePyramid([16], 8, num_outs=num_outs)
    height, width = size
    expected = [(4 * height, 4 * width), (2 * height, 2 * width), size]
    while len(expected) < num_outs:
        expected.append(tuple((n + 1) // 2 for n in expected[-1]))
    outs = neck((torch.rand(2, 16, *size),))
    assert [tuple(o.shape) for o in outs] == [(2, 8, *s) for s in expected]


@pytest.mark.parametrize('stride, divisor', [(8, 2), (16, 4), (32, 8)])
def test_other_strides(stride: int, divisor: int) -> None:
    neck = SimpleFeaturePyramid(2 * divisor, 8, stride=stride)
    x = torch.rand(1, 2 * divisor, 256 // stride, 128 // stride)
    sizes = [tuple(o.shape[2:]) for o in neck((x,))]
    assert sizes == [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2)]
    check_gradients(neck, (x,))
    with pytest.raises(UserError, match=f'a multiple of {divisor}'):
        SimpleFeaturePyramid(2 * divisor + 1, stride=stride)


@pytest.mark.parametrize('stride', [6, 10, 12, 14, 20, 28, 40])
@pytest.mark.parametrize('cells', [5, 8, 37])
def test_strides_that_do_not_halve(stride: int, cells: int) -> None:
    """Each level covers the image, with less than one further cell."""
    neck = SimpleFeaturePyramid(16, 4, stride=stride)
    pixels = cells * stride
    outs = neck((torch.rand(1, 16, cells, cells),))
    base = 2 ** round(math.log2(stride))
    assert pixels <= outs[0].shape[2] * 4 < pixels + 2 * base
    for out, level in zip(outs, (4, 8, 16, 32, 64), strict=True):
        assert out.shape[2] * level >= pixels


def test_interpolation_keeps_positions() -> None:
    """A ramp over the pixels is the same ramp on the levels."""
    neck = SimpleFeaturePyramid(4, stride=14)
    seen = []
    neck.levels[2] = nn.Identity()
    neck.levels[2].register_forward_hook(lambda *io: seen.append(io[2]))
    centres = 14 * torch.arange(37) + 7.0
    neck((centres.expand(1, 4, 37, 37).contiguous(),))
    row = seen[0][0, 0, 0]
    expected = 16 * torch.arange(len(row)) + 8.0
    torch.testing.assert_close(row[:-1], expected[:-1])


def test_gradients() -> None:
    x = torch.rand(2, 16, 5, 6)
    check_gradients(SimpleFeaturePyramid(16, 8), (x,))


def test_each_level_sees_its_own_patch_of_the_map() -> None:
    """A change of one cell reaches the cells above it, and 3x3 around."""
    neck = SimpleFeaturePyramid(8, 4).eval()
    x = torch.randn(1, 8, 9, 9)
    y = x.clone()
    y[..., 4, 4] += 1
    for a, b, first, last in zip(
        neck((x,)), neck((y,)), (15, 7, 3, 1), (20, 10, 5, 3), strict=False
    ):
        rows = (a != b).any(1)[0].any(1).nonzero().flatten()
        assert (rows[0], rows[-1]) == (first, last)


def test_further_levels_drop_every_second_cell() -> None:
    outs = SimpleFeaturePyramid(8, 4)((torch.randn(1, 8, 8, 6),))
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])


def test_layer_norm_is_over_channels() -> None:
    norm = LayerNorm2d(6, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    mean = x.mean(1, keepdim=True)
    var = x.var(1, unbiased=False, keepdim=True)
    expected = (x - mean) / (var + 1e-6).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_follows_a_network_of_one_resolution() -> None:
    backbone = GMLP('tiny', out_indices=1)
    neck = SimpleFeaturePyramid(backbone.out_channels)
    outs = neck(backbone(torch.rand(1, 3, 96, 128)))
    sizes = [tuple(o.shape[2:]) for o in outs]
    assert sizes == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]


def test_wrong_inputs() -> None:
    neck = SimpleFeaturePyramid(8)
    with pytest.raises(UserError, match='one map of 8.*out_indices=-1'):
        neck((torch.rand(1, 8, 4, 4), torch.rand(1, 8, 4, 4)))
    with pytest.raises(UserError, match='one map of 8'):
        neck((torch.rand(1, 4, 4, 4),))
    for stride in (0, 4, 64):
        with pytest.raises(UserError, match=f'(?s)stride={stride}.*6 to 45'):
            SimpleFeaturePyramid(8, stride=stride)
