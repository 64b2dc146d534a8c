# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Focal loss (Lin et al., 2017) of sigmoid and softmax scores.

mmcv clamps the argument of the logarithm at the smallest normal float32, so
a saturated score costs 87.3 and not infinity.
"""

import torch
from torch import Tensor

from .precision import writes

_TINY = torch.finfo(torch.float32).tiny


def _weighted(loss: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Multiplies by the class weight of each target; 1 for background."""
    if not weight.numel():
        return loss
    known = (target >= 0) & (target < len(weight))
    row = torch.where(known, weight[target * known], 1)
    return loss * (row[:, None] if loss.dim() == 2 else row)


def _positives(target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns row and class of the rows whose target is a class."""
    rows = ((target >= 0) & (target < classes)).nonzero()[:, 0]
    return rows, target[rows]


@writes('output')
def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> Tensor:
    """Computes a binary focal loss of logits for each row and class, (N, C).

    A ``target`` (N,) that is not a class below C is background: the row is
    negative for all classes. ``weight`` has a weight per class, or is empty.
    Positives are weighted by ``alpha``, negatives by ``1 - alpha``.
    """
    p = input.sigmoid()
    rest = 1 - p
    loss = (alpha - 1) * p.pow(gamma) * rest.clamp(min=_TINY).log()
    at = _positives(target, input.shape[1])
    loss[at] = -alpha * rest[at].pow(gamma) * p[at].clamp(min=_TINY).log()
    return _weighted(loss, target, weight)


@writes('grad_input')
def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> Tensor:
    """Computes the derivative of each loss by its own logit."""
    p = input.sigmoid()
    rest = 1 - p
    grad = gamma * rest * rest.clamp(min=_TINY).log() - p
    grad *= (alpha - 1) * p.pow(gamma)
    at = _positives(target, input.shape[1])
    p, rest = p[at], rest[at]
    grad[at] = (
        -alpha
        * rest.pow(gamma)
        * (rest - gamma * p * p.clamp(min=_TINY).log())
    )
    return _weighted(grad, target, weight)


@writes('output')
def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> Tensor:
    """Computes the focal loss of the target's probability, (N,).

    ``input`` (N, C) are probabilities, as mmcv has applied the softmax. A
    negative ``target`` is ignored. All rows are weighted by ``alpha``.
    """
    rows, classes = _positives(target, input.shape[1])
    p = input[rows, classes]
    loss = input.new_zeros(len(input))
    loss[rows] = -alpha * (1 - p).pow(gamma) * p.clamp(min=_TINY).log()
    return _weighted(loss, target, weight)


@writes('grad_input')
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> Tensor:
    """Computes the derivative by the logits; ``input`` is the softmax."""
    rows, classes = _positives(target, input.shape[1])
    p = input[rows, classes]
    rest = 1 - p
    slope = input.new_zeros(len(input))
    slope[rows] = alpha * (
        gamma
        * rest.clamp(min=_TINY).pow(gamma - 1)  # 0 ** -1 times log 1 is NaN
        * p
        * p.clamp(min=_TINY).log()
        - rest.pow(gamma)
    )
    slope = _weighted(slope, target, weight)
    grad = -slope[:, None] * input
    grad[rows, classes] += slope[rows]
    return grad
