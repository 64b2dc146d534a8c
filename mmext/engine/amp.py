# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mixed precision without a GPU.

MMEngine's ``AmpOptimWrapper`` asks for an accelerator. On the CPU the type
for it is bfloat16: it has float32's range, so no loss scaling is needed, and
float16 convolutions are not implemented there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward pass runs in bfloat16 on the CPU.

    Weights, gradients and the optimiser's state stay in float32.

    Args:
        optimizer: As for ``OptimWrapper``.
        accumulative_counts: Batches a step. Default: 1.
        clip_grad: Arguments of gradient clipping. Default: none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocasts the forward pass."""
        cast = torch.autocast('cpu', dtype=torch.bfloat16)
        with super().optim_context(model), cast:
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Also takes the state of a run with loss scaling (a GPU's)."""
        state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)
