# Licensed under the Apache License, Version 2.0. See LICENSE.
"""PyTorch's modules inside their wrappers, and devices for them."""

from __future__ import annotations

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmext.errors import UserError


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside DDP and test-time augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def is_exporting() -> bool:
    """Whether ``torch.export`` or ``torch.jit.trace`` follows the model.

    The former is seen from PyTorch 2.7 on.
    """
    exporting = getattr(torch.compiler, 'is_exporting', bool)
    return torch.jit.is_tracing() or exporting()


def require_device(device: str) -> None:
    """Raises `UserError` if PyTorch cannot use a device (``cuda:0``)."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'device {device!r} is not available: '
            f'{str(error).splitlines()[0]}',
            f'{torch.cuda.device_count()} GPUs are visible; --device cpu '
            'works everywhere.',
        ) from error
