# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Dynamic depth-wise convolutions that ``torch.export`` has followed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx.experimental import _config as shape_config

from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.inhomogeneous_conv import (
    inhomogeneous_depthwise_conv,
    unrolled_depthwise_conv,
)

BN = {'type': 'BN'}


@pytest.mark.parametrize('groups', [1, 3, 6])
def test_unrolled_equals_the_convolution(groups: int) -> None:
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    weight = torch.randn(2, groups, 25, 7, 5, dtype=torch.float64)
    expected = inhomogeneous_depthwise_conv(x, weight)
    torch.testing.assert_close(unrolled_depthwise_conv(x, weight), expected)


@pytest.mark.parametrize(
    'layer',
    [
        HomogeneousDynamicConv(8, 3, BN),
        InhomogeneousDynamicConv(8, 3, 2, BN),
    ],
)
def test_programs_take_other_sizes(layer: nn.Module) -> None:
    """A number of groups that depends on the batch stopped the exporter."""
    layer.eval()
    for value in layer.parameters():
        nn.init.normal_(value, std=0.3)
    dims = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
    with shape_config.patch(backed_size_oblivious=True):
        program = torch.export.export(
            layer, (torch.randn(2, 8, 9, 11),), dynamic_shapes=(dims,)
        )
    targets = {str(node.target) for node in program.graph.nodes}
    # Only the pointwise convolutions are left.
    assert not any('autograd_function' in name for name in targets)
    for shape in ((1, 8, 6, 5), (3, 8, 12, 7)):
        x = torch.randn(*shape)
        with torch.no_grad():
            expected = layer(x)
        torch.testing.assert_close(program.module()(x), expected)
