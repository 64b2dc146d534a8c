# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mixed precision: float16 on a GPU, bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn


def set_amp(cfg: Config) -> None:
    """Turns on mixed precision; the runner picks the type of the device."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward pass runs in bfloat16 on the CPU.

    ``AmpOptimWrapper`` does not work there: PyTorch implements no float16
    convolutions for the CPU. bfloat16 has the range of float32, so that the
    loss need not be scaled. Weights, gradients and the state of the optimizer
    stay in float32. The arguments are those of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        cast = torch.autocast('cpu', dtype=torch.bfloat16)
        with super().optim_context(model), cast:
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads a state, also that of a run with loss scaling (on a GPU)."""
        state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)


class Float32Conv2d(nn.Conv2d):
    """A convolution that autocast on a CPU leaves in float32.

    The result has the type of the input.
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        with torch.autocast('cpu', enabled=False):
            out = super()._conv_forward(input.float(), weight, bias)
        return out.to(input.dtype)


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Makes autocast leave depth-wise convolutions in float32, in place.

    PyTorch computes the gradients of their few weights in bfloat16 several
    times slower than in float32, and the rest no faster
    (benchmarks/results/training_step.md).
    """
    for module in model.modules():
        depthwise = (
            type(module) is nn.Conv2d  # a subclass may compute something else
            and 1 < module.in_channels == module.groups
        )
        if depthwise:
            module.__class__ = Float32Conv2d
