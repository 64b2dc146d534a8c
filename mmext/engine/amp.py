# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mixed precision on the CPU, where ``AmpOptimWrapper`` does not work.

bfloat16 has the range of float32, so that the loss need not be scaled. PyTorch
implements no float16 convolutions for the CPU.
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

    Weights, gradients and the state of the optimizer stay in float32. The
    arguments are those of ``OptimWrapper``.
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
