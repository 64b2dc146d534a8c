# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A shortcut plus a batch norm that is scaled per image and channel.

A batch norm computes x * a + b per channel. Scaling its output only changes a
and b, so it needs no additional pass over the map. In the backward pass the
gradients of the scale and of the batch's statistics follow from those of a
and b. The average of the norm's output, from which the scale is chosen,
follows from the average of its input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.utils.modules import is_exporting

# Elements of a batch from which this is faster for a norm in training mode.
# For smaller ones the additional calls take longer than they save.
WORTHWHILE = 1 << 20


def can_scale(norm: nn.Module, x: Tensor) -> bool:
    """Returns whether :func:`add_scaled_batch_norm` supports this norm.

    The norm must be a fixed affine map per channel, or depend on the images
    of this process only. It must have no hooks, which would see other maps.
    ``torch.export`` and ``torch.jit.trace`` would take the batch size for a
    constant.
    """
    if (
        is_exporting()
        or not isinstance(norm, _BatchNorm)
        or not norm.affine
        or norm.running_mean is None
        or not len(x)
        or norm._forward_hooks
        or norm._forward_pre_hooks
    ):
        return False
    return not norm.training or (
        type(norm) is nn.BatchNorm2d
        and norm.momentum is not None
        and x.device.type == 'cpu'  # not measured on other devices
        and x[:, 0].numel() > 1
        and (len(x) == 1 or x.numel() > WORTHWHILE)
    )


def add_scaled_batch_norm(
    shortcut: Tensor,
    norm: nn.Module,
    x: Tensor,
    average: Callable[[], Tensor],
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """Returns shortcut + norm(x) * choose(average of norm(x)).

    ``shortcut`` and ``x`` are (N, C, H, W); ``average`` returns that of x
    over height and width, and ``choose`` the scale for that of norm(x), all
    (N, C). The norm is one for which :func:`can_scale` returned True.
    """
    n, c, h, w = x.shape
    if norm.training and n == 1:
        norm.num_batches_tracked.add_(1)
        # With one image in the batch, its average after the norm is the bias.
        scale = choose(norm.bias[None].to(x.dtype))[0]
        return shortcut + functional.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            scale * norm.weight,
            scale * norm.bias,
            True,
            norm.momentum,
            norm.eps,
        )
    pooled = average()
    if norm.training:
        x, f, mean, invstd = _Statistics.apply(x, pooled, norm)
        f_average = (pooled - mean) * (invstd * norm.weight) + norm.bias
        scale = choose(f_average.to(x.dtype))
    else:
        scale = choose(norm(pooled[..., None, None])[..., 0, 0])
        if n == 1 or x.is_contiguous():
            # The images become channels of one image.
            f = functional.batch_norm(
                x.reshape(1, n * c, h, w),
                norm.running_mean.expand(n, c).flatten(),
                norm.running_var.expand(n, c).flatten(),
                (scale * norm.weight).flatten(),
                (scale * norm.bias).flatten(),
                training=False,
                eps=norm.eps,
            ).reshape(n, c, h, w)
            # f may be a view; autograd copies if it is changed in place.
            return f + shortcut if f.requires_grad else f.add_(shortcut)
        with torch.no_grad():
            f = norm(x)
        mean = norm.running_mean
        invstd = (norm.running_var + norm.eps).rsqrt()
    return _AddScaled.apply(
        shortcut,
        x,
        f,
        mean,
        invstd,
        scale,
        scale * norm.weight,
        scale * norm.bias,
    )


class _Statistics(torch.autograd.Function):
    """Normalises a batch and updates the norm's running statistics.

    Takes x and its average over each image (N, C); returns x, norm(x), which
    has no gradient here, and the mean and 1 / deviation of the batch (C). The
    gradient of the mean goes to that average. Since var = E[x * x] - mean *
    mean, the rest of the variance's gradient is x times a constant.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, average: Tensor, norm: nn.Module
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # f has none
        norm.num_batches_tracked.add_(1)
        f, mean, invstd = torch.native_batch_norm(
            x,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            True,
            norm.momentum,
            norm.eps,
        )
        ctx.save_for_backward(x, mean, invstd)
        ctx.mark_non_differentiable(f)
        return x.view_as(x), f, mean, invstd

    @staticmethod
    @once_differentiable
    def backward(
        ctx, dx: Tensor, _: None, dmean: Tensor, dinvstd: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, mean, invstd = ctx.saved_tensors
        n, values = len(x), x[:, 0].numel()
        dvar = -0.5 * invstd**3 * dinvstd
        slope = (2 / values * dvar)[:, None, None].to(x.dtype)
        dmean = (dmean - 2 * mean * dvar) / n
        # In place: _AddScaled made dx only for this.
        return dx.addcmul_(x, slope), dmean.expand(n, -1).to(x.dtype), None


class _AddScaled(torch.autograd.Function):
    """Computes shortcut + f * scale in place of f, the norm of x.

    The backward pass is that of shortcut + (x - mean) * invstd * weight +
    bias, with weight and bias (N, C), so f is not saved.
    """

    @staticmethod
    def forward(
        ctx,
        shortcut: Tensor,
        x: Tensor,
        f: Tensor,
        mean: Tensor,
        invstd: Tensor,
        scale: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, invstd, weight)
        ctx.mark_dirty(f)
        return torch.addcmul(
            shortcut, f, scale[..., None, None].to(f.dtype), out=f
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, invstd, weight = ctx.saved_tensors
        gain = weight * invstd
        dx = grad * gain[..., None, None].to(grad.dtype)
        dweight, dbias = _sums(grad, x, mean, invstd)
        dmean = -(gain * dbias).sum(0)
        dinvstd = (weight * dweight).sum(0) / invstd
        return grad, dx, None, dmean, dinvstd, None, dweight, dbias


def _sums(
    grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the sums of grad * (x - mean) * invstd and of grad, (N, C)."""
    n, c, h, w = x.shape
    if x.is_contiguous() and grad.is_contiguous():
        shape, m, s = (1, 1, n * c, h, w), mean.repeat(n), invstd.repeat(n)
    else:
        shape, m, s = (n, 1, c, h, w), mean, invstd
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            g, y, None, None, None, m, s, True, 0.0, [False, True, True]
        )[1:]
        for g, y in zip(grad.reshape(shape), x.reshape(shape), strict=True)
    ]
    dweight, dbias = (torch.stack(s) for s in zip(*sums, strict=True))
    return dweight.view(n, c), dbias.view(n, c)
