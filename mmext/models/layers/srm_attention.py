# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Style-based recalibration.

Paper: Lee et al., SRM: A Style-based Recalibration Module for Convolutional
Neural Networks, ICCV 2019.
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.layers.channel_attention import ChannelAttention


@MODELS.register_module()
class SRMAttention(ChannelAttention):
    """Weighted mean and deviation of each channel, norm, sigmoid.

    Its parameters should have no weight decay::

        paramwise_cfg=dict(custom_keys={'.srm.': dict(decay_mult=0)})

    The norm is over images, so training needs two images per process, or
    SyncBN. The norm follows the training mode of this layer: ``norm_eval`` of
    a backbone would keep it at its initial statistics.

    Args:
        in_channels: Channels C.
        norm_cfg: The norm over images.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If there is a single image in training, with plain BN.

    Example:
        >>> import torch
        >>> SRMAttention(64)(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    _abbr_ = 'srm'

    def __init__(
        self,
        in_channels: int,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.cfc = nn.Parameter(torch.zeros(in_channels, 2))
        self.bn = build_norm_layer(norm_cfg or {'type': 'BN'}, in_channels)[1]

    def gate(self, x: Tensor) -> Tensor:
        self.bn.train(self.training)
        if self.training and len(x) == 1 and type(self.bn) is nn.BatchNorm2d:
            raise UserError(
                'SRMAttention: one image in a training batch; its norm is '
                'over images.',
                "Give each process two or more, or norm_cfg=dict(type='"
                "SyncBN').",
            )
        # Unbiased, as the official code; a 1 x 1 map has no deviation.
        several = int(x.shape[-2:].numel() > 1)
        var, mean = torch.var_mean(x, dim=(2, 3), correction=several)
        style = torch.stack([mean, (var + 1e-5).sqrt()], dim=-1)
        z = (style * self.cfc).sum(-1)
        return self.bn(z[..., None, None])[..., 0, 0].sigmoid()
