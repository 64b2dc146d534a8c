# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Channel attention: a gate in (0, 1) for each image and channel.

Squeeze-and-excitation (Hu et al., CVPR 2018), ECA-Net (Wang et al., CVPR
2020), FcaNet (Qin et al., ICCV 2021) and SRM (Lee et al., ICCV 2019). Each is
a plugin of mmdet's ResNet, after the last norm of the residual branch and
before the addition::

    plugins=[dict(cfg=dict(type='SEAttention'), position='after_conv3')]
"""

from __future__ import annotations

import logging
import math

import torch
from mmcv.cnn import build_norm_layer
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.arguments import reduced
from mmext.models.layers.global_average import global_average
from mmext.models.layers.mean_and_variance import mean_and_variance
from mmext.utils.modules import is_exporting

# The 16 frequencies of 7 x 7 that gave the best accuracy by themselves, best
# first ('top16' of FcaNet's code).
TOP16_ROWS = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
TOP16_COLUMNS = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)
# The feature sizes of the stages of a bottleneck ResNet on 224 x 224.
STAGE_SIZES = {256: 56, 512: 28, 1024: 14, 2048: 7}


class ChannelAttention(BaseModule):
    """Multiplies x by a gate in (0, 1) per image and channel.

    Subclasses define ``gate``, which maps (N, C, H, W) to (N, C).

    mmdet's ResNet freezes complete stages, these layers included, even if
    they were never trained; :class:`mmext.models.PluginResNet` does not.
    Random weights that are frozen are reported once.
    """

    _filled = False

    def gate(self, x: Tensor) -> Tensor:
        """Returns the attention (N, C)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Returns x * gate(x), of the same shape (N, C, H, W)."""
        self._report_if_frozen_at_random()
        return x * self.gate(x)[..., None, None].to(x.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        self._filled |= any(key.startswith(prefix) for key in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _report_if_frozen_at_random(self) -> None:
        if (
            self._filled
            or not torch.is_grad_enabled()
            or any(p.requires_grad for p in self.parameters())
        ):
            return
        self._filled = True
        print_log(
            f'{type(self).__name__} is frozen at its initial, untrained '
            "weights: frozen_stages covers its stage. Use type='PluginResNet'"
            ' (freezes only what came from the checkpoint), frozen_stages=0, '
            'or a checkpoint that holds the attention weights.',
            logger='current',
            level=logging.WARNING,
        )


def excitation(channels: int, ratio: int, bias: bool) -> nn.Sequential:
    """Returns C -> C / ratio, ReLU, -> C, sigmoid."""
    hidden = reduced(channels, ratio)
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=bias),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, channels, bias=bias),
        nn.Sigmoid(),
    )


@MODELS.register_module()
class SEAttention(ChannelAttention):
    """Squeeze-and-excitation: average, C -> C / ratio, ReLU, -> C, sigmoid.

    Args:
        in_channels: Channels C.
        ratio: C over the channels of the hidden layer. Default: 16.
        bias: Whether the two linear layers have biases. The 44.02 million
            parameters in the ECA paper are without. Default: True.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``ratio`` is below 1.

    Example:
        >>> import torch
        >>> SEAttention(64)(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    _abbr_ = 'se'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        bias: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.fc = excitation(in_channels, ratio, bias)

    def gate(self, x: Tensor) -> Tensor:
        return self.fc(global_average(x))


def adaptive_kernel_size(channels: int) -> int:
    """Returns the odd number at or above (log2 C + 1) / 2, as ECA's paper."""
    t = int(abs((math.log2(channels) + 1) / 2))
    return t if t % 2 else t + 1


@MODELS.register_module()
class ECAAttention(ChannelAttention):
    """Global average, a 1-D convolution across channels, sigmoid.

    The sigmoid is missing in the paper's code figure; its text and the
    official code have it.

    Args:
        in_channels: Channels C.
        kernel_size: Odd width of the convolution. None is the paper's
            adaptive rule: the odd number at or above (log2 C + 1) / 2. The
            official networks have a fixed one for each stage (3, 5, 5, 7 in
            ECA-Net50): give one plugin per stage, with its ``stages`` mask,
            see docs/attention.md. Default: None.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``kernel_size`` is not odd and positive.

    Example:
        >>> import torch
        >>> ECAAttention(64)(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    _abbr_ = 'eca'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if kernel_size is None:
            kernel_size = adaptive_kernel_size(in_channels)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(
                f'ECAAttention: kernel_size={kernel_size} is not an odd '
                'number.',
                f'Use {max(kernel_size, 0) + 1}, or None for the adaptive '
                'rule.',
            )
        self.conv = nn.Conv1d(
            1, 1, kernel_size, padding=kernel_size // 2, bias=False
        )

    def gate(self, x: Tensor) -> Tensor:
        return self.conv(global_average(x)[:, None])[:, 0].sigmoid()


def cosine_bases(frequencies: tuple[int, ...], size: int) -> Tensor:
    """Returns orthonormal cosines (len(frequencies), size), in float64."""
    f = torch.tensor(frequencies, dtype=torch.float64)[:, None]
    at = torch.arange(size, dtype=torch.float64) + 0.5
    norm = (1 + (f > 0).double()).sqrt() / math.sqrt(size)
    return torch.cos(math.pi * f * at / size) * norm


def averages(size: int, cells: int, like: Tensor) -> Tensor:
    """Returns the weights of adaptive average pooling, (cells, size)."""
    pixel = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    first = cell * size // cells
    end = ((cell + 1) * size + cells - 1) // cells
    inside = (pixel >= first) & (pixel < end)
    return inside.to(like.dtype) / (end - first).to(like.dtype)


def _channels_last(x: Tensor) -> bool:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x.device.type == 'cpu' and last and not x.is_contiguous()


@MODELS.register_module()
class FCAAttention(ChannelAttention):
    """Frequency channel attention: cosine components instead of the average.

    The global average is the lowest component of a 2-D discrete cosine
    transform. Here each of 16 groups of channels keeps another component;
    then follows squeeze-and-excitation without biases.

    Args:
        in_channels: Channels C, a multiple of 16.
        ratio: C over the channels of the hidden layer. Default: 16.
        dct_size: Side of the map for the transform, at least 7; other sizes
            are average-pooled to it. None is that of a bottleneck ResNet: 56,
            28, 14, 7 for 256, 512, 1024, 2048 channels. Default: None.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If C is not a multiple of 16, ``dct_size`` is unknown or
            ``ratio`` is below 1.

    Example:
        >>> import torch
        >>> FCAAttention(256)(torch.rand(2, 256, 7, 5)).shape
        torch.Size([2, 256, 7, 5])
    """

    _abbr_ = 'att'  # the name in FcaNet's released weights

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        dct_size: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        groups = len(TOP16_ROWS)
        if in_channels % groups:
            raise UserError(
                f'FCAAttention: in_channels={in_channels} is not a multiple '
                f'of {groups}, one group of channels for each frequency.'
            )
        size = STAGE_SIZES.get(in_channels) if dct_size is None else dct_size
        if size is None or size < 7:
            raise UserError(
                f'FCAAttention: dct_size={dct_size} for '
                f'in_channels={in_channels}.',
                'Give a dct_size of at least 7, the side of this feature '
                'map in pre-training; the default is known for '
                f'in_channels of {tuple(STAGE_SIZES)}.',
            )
        self.size = size
        scale = size // 7
        rows = cosine_bases(tuple(f * scale for f in TOP16_ROWS), size)
        columns = cosine_bases(tuple(f * scale for f in TOP16_COLUMNS), size)
        bases = torch.einsum('gy,gx->gyx', rows, columns).flatten(1)
        self.register_buffer('bases', bases.float(), persistent=False)
        self.fc = excitation(in_channels, ratio, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        n, c, *size = x.shape
        if is_exporting():  # ONNX has no such pooling
            rows, columns = (averages(side, self.size, x) for side in size)
            x = rows @ x @ columns.T
        elif size != [self.size, self.size]:
            x = nn.functional.adaptive_avg_pool2d(x, self.size)
        groups = len(self.bases)
        if _channels_last(x):  # where products would copy the map
            bases = self.bases.unflatten(1, (1, self.size, self.size))
            bases = bases.repeat_interleave(c // groups, 0).to(x.dtype)
            y = nn.functional.conv2d(x, bases, groups=c)
            return self.fc(y.flatten(1))
        # One matrix-vector product per group needs no copy of the bases.
        x = x.unflatten(1, (groups, -1)).flatten(3)
        y = torch.matmul(x, self.bases[:, :, None].to(x.dtype))
        return self.fc(y.reshape(n, c))


@MODELS.register_module()
class SRMAttention(ChannelAttention):
    """Style-based recalibration: weighted mean and deviation, norm, sigmoid.

    Its parameters should have no weight decay::

        paramwise_cfg=dict(custom_keys={'.srm.': dict(decay_mult=0)})

    The norm is over images, so training needs two images per process, or
    SyncBN. The norm follows the training mode of this layer: ``norm_eval`` of
    a backbone would keep it at its initial statistics.

    Args:
        in_channels: Channels C.
        norm_cfg: The norm over images. Default: BN.
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
        # Unbiased, as the official code.
        mean, var = mean_and_variance(x)
        style = torch.stack([mean, (var + 1e-5).sqrt()], dim=-1)
        z = (style * self.cfc).sum(-1)
        return self.bn(z[..., None, None])[..., 0, 0].sigmoid()
