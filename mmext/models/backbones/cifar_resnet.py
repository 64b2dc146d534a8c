# Licensed under the Apache License, Version 2.0. See LICENSE.
"""ResNets for images of 32x32 pixels, with attention or adaptive steps.

Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
section 4.2, and their ResNet-164 with bottlenecks (ECCV 2016). Differences:
where a stage begins, the shortcut is a 1x1 convolution, and the order is that
of the first paper in the deep networks too (norm and ReLU after convolution).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.models.backbones import resnet
from mmengine.registry import MODELS
from torch import nn

from mmext.models.backbones.stepnet_resnet import StepNetResNet


@MODELS.register_module()
class CifarResNet(StepNetResNet):
    """A ResNet of three stages, with strides 1, 2 and 4.

    It has 16, 32 and 64 channels, four times as many with bottlenecks, and
    by default neither adaptors nor attention. Attention is a plugin, at
    ``after_conv2`` of a basic block or ``after_conv3`` of a bottleneck.

    Args:
        depth: 20, 32, 56 (basic blocks), 29 or 164 (bottlenecks).
        in_channels: Channels of the image.
        base_channels: Channels of the first stage.
        out_indices: Stages to return; -1 is the last.
        stage_with_step: Stages whose blocks have a
            :class:`~mmext.models.StepAdaptor`.
        step_cfg: See :class:`~mmext.models.StepNetResNet`, as ``step_blocks``,
            ``plugins`` and the others.

    Raises:
        UserError: As :class:`~mmext.models.StepNetResNet`.

    Example:
        >>> import torch
        >>> self = CifarResNet(20, stage_with_step=(True, True, True))
        >>> [tuple(level.shape) for level in self(torch.rand(1, 3, 32, 32))]
        [(1, 64, 8, 8)]
    """

    arch_settings: ClassVar[dict[int, tuple]] = {
        20: (resnet.BasicBlock, (3, 3, 3)),
        32: (resnet.BasicBlock, (5, 5, 5)),
        56: (resnet.BasicBlock, (9, 9, 9)),
        29: (resnet.Bottleneck, (3, 3, 3)),
        164: (resnet.Bottleneck, (18, 18, 18)),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        base_channels: int = 16,
        out_indices: int | Sequence[int] = -1,
        stage_with_step: Sequence[bool] = (False, False, False),
        step_cfg: dict | None = None,
        step_blocks: Sequence[Sequence[int]] | None = None,
        plugins: list[dict] | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            depth=depth,
            in_channels=in_channels,
            base_channels=base_channels,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            plugins=plugins,
            with_cp=with_cp,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
            step_cfg=step_cfg,
            stage_with_step=stage_with_step,
            step_blocks=step_blocks,
        )

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        self.conv1 = build_conv_layer(
            None, in_channels, stem_channels, 3, padding=1, bias=False
        )
        self.norm1_name, norm = build_norm_layer(
            self.norm_cfg, stem_channels, postfix=1
        )
        self.add_module(self.norm1_name, norm)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
