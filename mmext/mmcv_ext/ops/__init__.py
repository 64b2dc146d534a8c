# Licensed under the Apache License, Version 2.0. See LICENSE.
# ruff: noqa: F401
"""The functions of ``mmcv._ext``, built on torchvision's ops and PyTorch.

Python imports this package under the name ``mmcv._ext``; do not import it as
a part of ``mmext``. Names, argument order and in-place results are those that
``mmcv.ops`` expects of the compiled module. Any other name is a function that
raises when it is called: ``mmcv.ops`` asserts at import that all its functions
exist, and most are never used.
"""

from collections.abc import Callable
from types import FunctionType

import torch
import torchvision

from .bbox import bbox_overlaps
from .border_align import border_align_backward, border_align_forward
from .carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from .focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .masked_conv import masked_col2im_forward, masked_im2col_forward
from .ms_deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from .nms import nms, nms_match, softnms
from .roi_align import roi_align_backward, roi_align_forward
from .roi_pool import roi_pool_backward, roi_pool_forward
from .rotated import box_iou_rotated, nms_rotated
from .sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)


def get_compiler_version() -> str:
    """Returns what the ops run on, as no compiler was used."""
    return f'none (mmext on torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """Returns the CUDA version of PyTorch, whose kernels are used."""
    return torch.version.cuda or 'not available'


#: The functions above.
__all__ = [k for k, v in globals().items() if isinstance(v, FunctionType)]


def __getattr__(name: str) -> Callable:
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"mmcv's op {name!r} is not among those that mmext implements "
            'without a compiler. Build mmcv with its ops: `pip uninstall -y '
            'onedl-mmcv && pip install --no-build-isolation --no-cache-dir '
            '--no-binary onedl-mmcv onedl-mmcv` (or mmcv==2.1.0 instead of '
            'mmcv-lite). This needs a C++ compiler, for a GPU also the CUDA '
            'toolkit, and about 15 minutes. mmext then uses the compiled ops '
            'automatically.'
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
