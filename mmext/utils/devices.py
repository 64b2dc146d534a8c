# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of devices."""

from __future__ import annotations

import torch

from mmext.errors import UserError


def require_device(device: str) -> None:
    """Checks that PyTorch can use a device.

    Args:
        device: Its name, such as ``'cpu'`` or ``'cuda:0'``.

    Raises:
        UserError: PyTorch does not know the device, or cannot use it.
    """
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'device {device!r} is not available: '
            f'{str(error).splitlines()[0]}',
            f'{torch.cuda.device_count()} GPUs are visible; --device cpu '
            'works everywhere.',
        ) from error
