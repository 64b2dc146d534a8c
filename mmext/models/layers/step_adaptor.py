# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The step adaptor of StepNet.

A residual block is a forward-Euler step, x_{t+1} = x_t + f(x_t) dt. StepNet
first takes a coarse step with dt = 1, then chooses the step size from both
states, per image and channel: x_t + f(x_t) * A(x_t, x_t + f(x_t)).

Paper: Huang et al., Understanding Self-attention Mechanism via Dynamical
System Perspective, ICCV 2023 (arXiv 2308.09939), section 2.5. The adaptor of
Fig. 4(b) and its alternatives are a *reconstruction*, see docs/stepnet.md.
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.arguments import choose, reduced

INPUTS = ('both', 'current', 'next', 'difference')
FUSIONS = ('concat', 'sum', 'product', 'separate')
STARTS = ('identity', 'paper')


class _Branch(nn.Sequential):
    """Linear layers to ``hidden`` channels and back, without biases."""

    def __init__(
        self, inputs: int, hidden: int, channels: int, norm_cfg: dict | None
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden, bias=False)
        if norm_cfg is not None:
            self.norm = build_norm_layer(norm_cfg, hidden)[1]
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(hidden, channels, bias=False)


@MODELS.register_module()
class StepAdaptor(BaseModule):
    """Chooses the step of a residual block from its two states.

    Args:
        in_channels: Channels C of the states.
        inputs: ``both`` states, the ``current`` one x_t, the ``next`` one
            x_t + f, or their ``difference`` f, which makes it
            squeeze-and-excitation (Table 4). Default: ``'both'``.
        fusion: How two inputs are combined, for ``inputs='both'``:
            ``concat`` to 2C, ``sum``, ``product``, or ``separate`` branches
            whose outputs are added before the gate. Default: ``'concat'``.
        ratio: C over the channels of the hidden layer. Default: 16.
        norm_cfg: Norm layer on the hidden vector, such as
            ``dict(type='LN')``; ``BN1d`` needs two images per process.
            Default: None.
        start: With ``identity`` the gate is 2 sigmoid(z) and the last layer
            is zero, so the step is exactly 1 until the first update, weights
            of a plain ResNet give the same outputs, and the gradient is not
            zero. With ``paper`` the gate is sigmoid(z), in (0, 1). Default:
            ``'identity'``.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``inputs``, ``fusion`` or ``start`` is unknown, or
            ``ratio`` is below 1.

    Example:
        >>> import torch
        >>> adaptor = StepAdaptor(64)
        >>> x, f = torch.rand(2, 8, 64)  # averages over height and width
        >>> step = adaptor(x, f)
        >>> tuple(step.shape), float(step.min()), float(step.max())
        ((8, 64), 1.0, 1.0)
    """

    def __init__(
        self,
        in_channels: int,
        inputs: str = 'both',
        fusion: str = 'concat',
        ratio: int = 16,
        norm_cfg: dict | None = None,
        start: str = 'identity',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        choose('inputs', inputs, INPUTS)
        choose('fusion', fusion, FUSIONS)
        choose('start', start, STARTS)
        self.inputs, self.fusion, self.start = inputs, fusion, start
        two = inputs == 'both'
        width = 2 if two and fusion == 'concat' else 1
        self.branches = nn.ModuleList(
            _Branch(
                width * in_channels,
                reduced(in_channels, ratio),
                in_channels,
                norm_cfg,
            )
            for _ in range(2 if two and fusion == 'separate' else 1)
        )
        self._zero_last_layer()

    def _zero_last_layer(self) -> None:
        if self.start == 'identity':
            for branch in self.branches:
                nn.init.zeros_(branch.fc2.weight)

    def init_weights(self) -> None:
        """Initialises as usual, then restores the identity start."""
        super().init_weights()
        self._zero_last_layer()

    def _seen(self, x: Tensor, f: Tensor) -> list[Tensor]:
        """Returns the input (N, C or 2C) of each branch."""
        after = x + f
        if self.inputs != 'both':
            return [
                {'current': x, 'next': after, 'difference': f}[self.inputs]
            ]
        if self.fusion == 'concat':
            return [torch.cat([x, after], dim=1)]
        if self.fusion == 'sum':
            return [x + after]
        if self.fusion == 'product':
            return [x * after]
        return [x, after]

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Returns the step for the pooled state x and residual f, all (N, C).

        Pooling is linear, so the average of the next state is x + f, and the
        next state itself is not computed.
        """
        first, *second = self._seen(x, f)
        z = self.branches[0](first)
        if second:
            z = z + self.branches[1](second[0])
        return 2 * z.sigmoid() if self.start == 'identity' else z.sigmoid()
