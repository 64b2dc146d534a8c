# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Layers of the backbones."""

from mmext.models.layers.channel_attention import (
    ChannelAttention,
    ECAAttention,
    FCAAttention,
    SEAttention,
    SRMAttention,
)
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.inhomogeneous_conv import (
    inhomogeneous_depthwise_conv,
)
from mmext.models.layers.local_mlp import LocalMLP
from mmext.models.layers.pointwise import LayerNorm2d, PointwiseConv
from mmext.models.layers.spatial_gating_unit import SpatialGatingUnit
from mmext.models.layers.star_operation import StarOperation
from mmext.models.layers.step_adaptor import StepAdaptor

__all__ = [
    'ChannelAttention',
    'ECAAttention',
    'FCAAttention',
    'HomogeneousDynamicConv',
    'InhomogeneousDynamicConv',
    'LayerNorm2d',
    'LocalMLP',
    'PointwiseConv',
    'SEAttention',
    'SRMAttention',
    'SpatialGatingUnit',
    'StarOperation',
    'StepAdaptor',
    'inhomogeneous_depthwise_conv',
]
