# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A shortcut plus a batch norm, scaled per image and channel.

A batch norm is x * a + b per channel. Scaling its output only changes a and
b, so it costs no pass over the map: neither forward, nor backward, where the
gradients of the scale and of the batch's statistics follow from those of a
and b. And the average of the norm's output, from which the scale is chosen,
follows from the average of its input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# Elements of a batch from which a norm in train mode is worth scaling like
# this: smaller ones are through before the calls are.
WORTHWHILE = 1 << 20


def can_scale(norm: nn.Module, x: Tensor) -> bool:
    """Whether :func:`add_scaled_batch_norm` takes this norm and input.

    The norm is a fixed affine map per channel just now, or finds it from
    this process's images alone. And nobody watches it: hooks shall see the
    map that they expect.
    """
    if (
        not isinstance(norm, _BatchNorm)
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
        and x.device.type == 'cpu'  # elsewhere nobody has measured it
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
    """shortcut + norm(x) * choose(average of norm(x)), where ``can_scale``.

    Args:
        shortcut: (N, C, H, W).
        norm: A batch norm.
        x: Its input, (N, C, H, W).
        average: Gives the average of x over height and width, (N, C).
        choose: From the average of norm(x) to the scale, both (N, C).
    """
    n, c, h, w = x.shape
    if norm.training and n == 1:
        norm.num_batches_tracked.add_(1)
        # The image is the batch: its average after the norm is the bias.
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
            # It may be a view; autograd copies what changes in place in one.
            free = not (f.requires_grad or torch.jit.is_tracing())
            return f.add_(shortcut) if free else f + shortcut
        if torch.jit.is_tracing():
            return shortcut + norm(x) * scale[..., None, None].to(x.dtype)
        with torch.no_grad():
            f = norm(x)
        mean, invstd = (
            norm.running_mean,
            (norm.running_var + norm.eps).rsqrt(),
        )
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
    has no gradient here, mean and 1 / deviation of the batch (C). The mean's
    gradient goes to that average, and of the variance's there is left x times
    a constant: var = E[x * x] - mean * mean.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, average: Tensor, norm: nn.Module
    ) -> tuple[Tensor, ...]:
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
        # In place: _AddScaled made it for this alone.
        return dx.addcmul_(x, slope), dmean.expand(n, -1).to(x.dtype), None


class _AddScaled(torch.autograd.Function):
    """shortcut + f * scale, written over f, where f is the norm of x.

    Backward it is shortcut + (x - mean) * invstd * weight + bias, of weight
    and bias (N, C), so f need not be kept.
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
    """Sums over height and width of grad * (x - mean) * invstd and grad."""
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
