# Licensed under the Apache License, Version 2.0. See LICENSE.
"""StepNet on mmdet's ResNet: a StepAdaptor scales each residual branch.

Paper: Huang et al., Understanding Self-attention Mechanism via Dynamical
System Perspective, ICCV 2023 (arXiv 2308.09939). There is no official code;
the adaptor is a reconstruction, see docs/stepnet.md. f is the output of the
last norm of the residual branch (and of any plugin after it); x is the
shortcut, downsampled in the first block of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.backbones import resnet, resnext
from mmdet.models.layers import ResLayer
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmext.errors import UserError
from mmext.models.arguments import resolve_indices
from mmext.models.backbones.plugin_resnet import PluginResNet
from mmext.models.layers.global_average import global_average
from mmext.models.layers.scaled_batch_norm import (
    add_scaled_batch_norm,
    can_scale,
)
from mmext.models.layers.step_adaptor import StepAdaptor


class _StepBlock(nn.Module):
    """A residual block with ``step``, a StepAdaptor or None.

    The residual branch is f = after(norm(conv(inner(x)))). Subclasses define
    ``inner``, and ``parts``, which returns the last convolution, its norm, and
    the names of plugins after it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        conv, norm, after = self.parts()
        h = self.inner(x)
        f = conv(h)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.step is not None and not after and can_scale(norm, f):
            # f is affine in h here: its average is known before f, and the
            # weights of the norm can include the step.
            return self.relu(
                add_scaled_batch_norm(
                    x,
                    norm,
                    f,
                    average=lambda: _average_of_conv(conv, h, f),
                    choose=lambda f: self.step(global_average(x), f),
                )
            )
        f = norm(f)
        for name in after:
            f = getattr(self, name)(f)
        if self.step is None:
            f += x
        else:
            step = self.step(global_average(x), global_average(f))
            f = torch.addcmul(x, f, step[..., None, None].to(f.dtype))
        return self.relu(f)


def _average_of_conv(conv: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    """Returns the average of ``out = conv(x)`` over space."""
    pointwise = type(conv) is nn.Conv2d and conv.kernel_size == (1, 1)
    # Hooks may have changed the input or the output.
    hooked = conv._forward_hooks or conv._forward_pre_hooks
    # A small map is cheaper to average than its weights are to read again.
    if not pointwise or hooked or out.numel() < 4 * conv.weight.numel():
        return global_average(out)
    weight = conv.weight.flatten(1)
    return nn.functional.linear(global_average(x), weight, conv.bias)


class StepBasicBlock(_StepBlock, resnet.BasicBlock):
    """mmdet's basic block with an adaptive step.

    Unlike mmdet's it takes ``plugins``, at ``after_conv2``: after the last
    norm and before the addition, as ``after_conv3`` of a bottleneck.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        *args: Any,
        plugins: list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        for plugin in plugins or []:
            if plugin['position'] != 'after_conv2':
                raise UserError(
                    'StepNetResNet: a plugin of basic blocks has position='
                    f'{plugin["position"]!r}.',
                    "They have one position for plugins: 'after_conv2'.",
                )
        configs = [plugin['cfg'] for plugin in plugins or []]
        self.after_conv2_plugin_names = resnet.Bottleneck.make_block_plugins(
            self, planes, configs
        )

    def parts(self) -> tuple[nn.Module, nn.Module, list[str]]:
        return self.conv2, self.norm2, self.after_conv2_plugin_names

    def inner(self, x: Tensor) -> Tensor:
        return self.relu(self.norm1(self.conv1(x)))


class _StepBottleneck(_StepBlock):
    def parts(self) -> tuple[nn.Module, nn.Module, list[str]]:
        after = self.after_conv3_plugin_names if self.with_plugins else []
        return self.conv3, self.norm3, after

    def inner(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        if self.with_plugins:
            x = self.forward_plugin(x, self.after_conv1_plugin_names)
        x = self.relu(self.norm2(self.conv2(x)))
        if self.with_plugins:
            x = self.forward_plugin(x, self.after_conv2_plugin_names)
        return x


class StepBottleneck(_StepBottleneck, resnet.Bottleneck):
    """mmdet's bottleneck with an adaptive step."""


class StepGroupBottleneck(_StepBottleneck, resnext.Bottleneck):
    """ResNeXt's bottleneck with an adaptive step."""


@MODELS.register_module()
class StepNetResNet(PluginResNet):
    """A ResNet whose residual blocks choose their step size.

    It has the arguments of :class:`mmdet.models.ResNet` and its levels:
    strides 4, 8, 16, 32 with 256, 512, 1024, 2048 channels (64 to 512 for
    depths 18 and 34). With the default ``start='identity'`` and weights of a
    plain ResNet, its outputs are those of the plain ResNet. Freezing and
    ``init_cfg`` are as for :class:`~mmext.models.PluginResNet`: adaptors stay
    trainable in frozen stages, and the log names them as new if they are not
    in the checkpoint.

    Args:
        depth: 18, 34, 50, 101 or 152.
        out_indices: Stages to return, in rising order; -1 is the last.
        frozen_stages: Stem (0) and stages (1, ...) whose ResNet weights are
            frozen; -1 freezes nothing.
        norm_eval: Whether the BN of the ResNet stays in evaluation mode.
        groups: Groups of the 3x3 of bottlenecks; over 1 is ResNeXt.
        base_width: ResNeXt's width of a group in the first stage.
        step_cfg: Arguments of :class:`~mmext.models.StepAdaptor`; None is
            its defaults.
        stage_with_step: Stages whose blocks have an adaptor.
        step_blocks: For each stage, the blocks (from 0) that have one; None
            is all. Without an adaptor the step is 1.
        plugins: As in mmdet's ResNet. Basic blocks have one position,
            ``after_conv2``, after the last norm and before the addition.

    Raises:
        UserError: If a depth, block or adaptor argument is unknown, and as
            for :class:`~mmext.models.PluginResNet`.

    Example:
        >>> import torch
        >>> self = StepNetResNet(depth=18, norm_eval=False)
        >>> for level in self(torch.rand(1, 3, 32, 64)):
        ...     print(tuple(level.shape))
        (1, 64, 8, 16)
        (1, 128, 4, 8)
        (1, 256, 2, 4)
        (1, 512, 1, 2)
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        norm_eval: bool = True,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: list[dict] | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: dict | list[dict] | None = None,
        groups: int = 1,
        base_width: int = 4,
        step_cfg: dict | None = None,
        stage_with_step: Sequence[bool] = (True, True, True, True),
        step_blocks: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if depth not in self.arch_settings:
            raise UserError(
                f'StepNetResNet: depth={depth!r} is not known.',
                f'Depths: {", ".join(map(str, self.arch_settings))}.',
            )
        if groups > 1 and depth < 50:
            raise UserError(
                f'StepNetResNet: groups={groups} with depth={depth}, whose '
                'basic blocks have no groups.',
                'Use depth 50, 101 or 152, or groups=1.',
            )
        out_indices = resolve_indices(out_indices, num_stages)
        built = out_indices[-1] + 1
        if not -1 <= frozen_stages <= built:
            raise UserError(
                f'StepNetResNet: frozen_stages={frozen_stages}.',
                f'-1 freezes nothing, 0 the stem, and {built} every stage up '
                'to the last output.',
            )
        self.groups, self.base_width = groups, base_width
        self.step_cfg = step_cfg or {}
        self.step_blocks = _active_blocks(
            self.arch_settings[depth][1][:num_stages],
            stage_with_step,
            step_blocks,
        )
        super().__init__(
            depth=depth,
            in_channels=in_channels,
            stem_channels=stem_channels,
            base_channels=base_channels,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            style=style,
            deep_stem=deep_stem,
            avg_down=avg_down,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg or {'type': 'BN', 'requires_grad': True},
            norm_eval=norm_eval,
            dcn=dcn,
            stage_with_dcn=stage_with_dcn,
            plugins=plugins,
            with_cp=with_cp,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
        )
        # Stages without a gradient would stop distributed training.
        for name in self.res_layers[built:]:
            delattr(self, name)
        del self.res_layers[built:]

    def make_res_layer(
        self, block: type, planes: int, **kwargs: Any
    ) -> ResLayer:
        """Builds a stage of step blocks, with adaptors if configured."""
        if block is resnet.BasicBlock:
            block = StepBasicBlock
        elif self.groups == 1:
            block = StepBottleneck
        else:
            block = StepGroupBottleneck
            kwargs.update(
                groups=self.groups,
                base_width=self.base_width,
                base_channels=self.base_channels,
            )
        layer = ResLayer(block=block, planes=planes, **kwargs)
        active = self.step_blocks[len(self.res_layers)]
        for i, built in enumerate(layer):
            built.step = None
            if i in active:
                channels = planes * block.expansion
                built.step = StepAdaptor(channels, **self.step_cfg)
        return layer


def _active_blocks(
    depths: Sequence[int],
    stages: Sequence[bool],
    blocks: Sequence[Sequence[int]] | None,
) -> list[list[int]]:
    """Returns the blocks with an adaptor, for each stage."""
    if len(stages) < len(depths):
        raise UserError(
            f'StepNetResNet: stage_with_step={tuple(stages)} for '
            f'{len(depths)} stages.',
            'Give one True or False for each stage.',
        )
    active = [range(d) for d in depths] if blocks is None else blocks
    if len(active) != len(depths) or any(
        not set(wanted) <= set(range(depth))
        for depth, wanted in zip(depths, active, strict=True)
    ):
        raise UserError(
            f'StepNetResNet: step_blocks={active} does not fit stages of '
            f'{tuple(depths)} blocks.',
            'Give one sequence of block numbers, from 0, for each stage.',
        )
    return [
        list(b) if on else [] for b, on in zip(active, stages, strict=False)
    ]
