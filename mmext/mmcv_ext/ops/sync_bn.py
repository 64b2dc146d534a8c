# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Batch norm over the batches of several processes.

mmcv gathers the statistics. These are the local steps in between, on inputs
of shape (N, C, pixels). They also run on the CPU with gloo.
"""

from torch import Tensor

from .precision import writes


@writes('mean')
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> Tensor:
    """Computes the mean of each channel, (C,)."""
    return input.mean((0, 2))


@writes('var')
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Computes the biased variance of each channel around a mean, (C,)."""
    return (input - mean[:, None]).square().mean((0, 2))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Tensor | float,
    group_size: int,
) -> None:
    """Normalises, and updates the running statistics if there are any.

    ``mean`` and the biased ``var`` (C,) are those of all processes. ``norm``
    takes the normalised input in float32, ``std`` the root of ``var + eps``.
    ``momentum`` is the share of the new statistics.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    if weight is None:
        output.copy_(norm)
    else:
        output.copy_(norm * weight[:, None] + bias[:, None])
    if running_mean is not None:
        count = input.shape[0] * input.shape[2] * group_size
        unbiased = var * (count / (count - 1)) if count > 1 else var
        keep = 1 - momentum
        running_mean.copy_(running_mean * keep + mean * momentum)
        running_var.copy_(running_var * keep + unbiased * momentum)


@writes('grad_weight', 'grad_bias')
def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes the gradients of weight and bias for this process."""
    return (grad_output * norm).sum((0, 2)), grad_output.sum((0, 2))


@writes('grad_input')
def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> Tensor:
    """Computes the gradient of the input.

    ``grad_weight`` and ``grad_bias`` are averages over the processes.
    """
    n, _, pixels = grad_output.shape
    shared = grad_weight[:, None] * norm + grad_bias[:, None]
    return (weight / std)[:, None] * (grad_output - shared / (n * pixels))
