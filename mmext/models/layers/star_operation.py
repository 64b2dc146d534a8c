# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The star operation: the element-wise product of two linear branches.

Paper: Rewrite the Stars, CVPR 2024, sections 3 and 4.2 (arXiv 2403.19967).
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from mmext.models.arguments import choose

OPERATIONS = {'star': torch.mul, 'sum': torch.add}
ACT_POSITIONS = ('one', 'both', 'none', 'after')


class StarOperation(nn.Module):
    """Combines two branches of equal shape: ``act(a) * b`` by default.

    ``operation`` is ``'star'``, which multiplies, or ``'sum'``. The activation
    is applied to ``'one'`` branch, to ``'both'``, to ``'none'``, or
    ``'after'`` the operation (the paper's table 9).
    """

    def __init__(
        self,
        operation: str = 'star',
        act_cfg: dict | None = None,
        act_position: str = 'one',
    ) -> None:
        super().__init__()
        self.operation = choose('operation', operation, OPERATIONS)
        self.act_position = choose('act_position', act_position, ACT_POSITIONS)
        self.act = build_activation_layer(act_cfg) if act_cfg else None

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        join, position = OPERATIONS[self.operation], self.act_position
        if self.act is None or position == 'none':
            return join(a, b)
        if position == 'after':
            return self.act(join(a, b))
        return join(self.act(a), self.act(b) if position == 'both' else b)

    def extra_repr(self) -> str:
        return f'{self.operation!r}, act_position={self.act_position!r}'
