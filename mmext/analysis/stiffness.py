# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stiffness of a network's feature trajectories.

"Understanding Self-attention Mechanism via Dynamical System Perspective"
(Huang et al., ICCV 2023), definitions 1 and 2 and equations 5 and 6. The
residual blocks of a stage are forward-Euler steps of an ODE; stiffness
measures how unevenly the state moves along them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmext.analysis.residual import (
    NotFiniteError,
    Stage,
    channel_ratio,
    first_tensor,
    removed,
    residual_stages,
    watch_input,
)
from mmext.errors import UserError
from mmext.models import StepAdaptor


def neural_stiffness_index(
    x: Tensor, following: Tensor, step: Tensor | float = 1.0
) -> Tensor:
    """Computes the NSI, ``||(x_{t+1} - x_t) / dt|| / ||x_t||``.

    Sums use float64, so half precision does not overflow. If a step is 0, or
    unknown because f is 0, the state does not move, and 0 / 0 counts as 0. If
    a zero state moves, or a state is not finite, the index is not finite.

    Args:
        x: The state before the block, shape (N, ...).
        following: The state after the block.
        step: dt, broadcast over the state. Default: 1, no attention.

    Returns:
        Shape (N,), float64.
    """
    x, moved = x.double(), following.double() - x.double()
    if isinstance(step, Tensor):
        step = step.double()
        known = step.isfinite() & (step != 0)
        moved = torch.where(known, moved / step, 0.0)
    else:
        moved = moved / step
    distance, size = moved.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1)
    still = (distance == 0) & (size == 0)
    return torch.where(still, 0.0, distance / size)


def total_stiffness(nsi: np.ndarray) -> np.ndarray:
    """Computes the TNS of each image, (images,); 0 if nothing moves.

    The paper gives no closed form of equation 5. Read as an expectation over
    inputs, it is the integral of the indicator of stiffness over M1, M2 > 0.
    The trajectory is stiff if ``zmax >= mu (1 + M1)`` and ``zmax >= M2``,
    which is a rectangle of sides ``zmax / mu - 1`` and ``zmax``.

    Args:
        nsi: Shape (images, blocks), without the first block of each stage.
    """
    highest, mean = nsi.max(1), nsi.mean(1)
    moving = mean > 0
    return highest * (highest / np.where(moving, mean, 1) - 1) * moving


def stiffness_surface(
    nsi: np.ndarray, m1: np.ndarray, m2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes delta(M) and the stiff ratio p(M) over a grid of thresholds.

    Args:
        nsi: Shape (images, blocks).
        m1: Relative thresholds, shape (a,).
        m2: Absolute thresholds, shape (b,).

    Returns:
        The fraction of images with a stiff block, and the mean fraction of
        blocks that are stiff, each of shape (a, b).
    """
    relative = nsi.mean(1)[:, None] * (1 + m1)  # (images, a)
    threshold = np.maximum(relative[:, :, None], m2)  # (images, a, b)
    delta = (nsi.max(1)[:, None, None] >= threshold).mean(0)
    ratio = np.zeros_like(delta)
    for block in nsi.T:
        ratio += (block[:, None, None] >= threshold).mean(0)
    return delta, ratio / nsi.shape[1]


@dataclass
class Trajectories:
    """Measurements of one model.

    Attributes:
        stages: The model's residual stages.
        blocks: Names of the columns of ``nsi``: every block except the first
            of its stage.
        nsi: Shape (images, blocks), finite.
        steps: Step sizes of each block with attention (also of first
            blocks), shape (images, channels); NaN if f is 0 in a channel.
        left_out: Indices of the images whose NSI was not finite.
    """

    stages: list[Stage]
    blocks: list[str]
    nsi: np.ndarray
    steps: dict[str, np.ndarray]
    left_out: list[int]

    def of_block(self, block: str) -> np.ndarray:
        """Returns the NSI of a block, (images,); empty for a first block."""
        if block not in self.blocks:
            return np.empty(0)
        return self.nsi[:, self.blocks.index(block)]

    @property
    def tns(self) -> float:
        """Total neural stiffness: the mean over images."""
        return float(total_stiffness(self.nsi).mean())

    @property
    def tns_error(self) -> float:
        """Standard error of :attr:`tns`; 0 for one image."""
        values = total_stiffness(self.nsi)
        if len(values) < 2:
            return 0.0
        return float(values.std(ddof=1) / len(values) ** 0.5)


def measure(model: nn.Module, images: Iterable[Tensor]) -> Trajectories:
    """Runs a model on images of any sizes and records its trajectories.

    The model is set to evaluation mode and not changed otherwise. Raises
    `UserError` if there are no images, no stage has two residual blocks, or no
    image gives finite numbers.
    """
    images = list(images)
    if not images:
        raise UserError('There are no images to measure stiffness on.')
    model.eval()
    stages = _first_finite(model, images)  # NaN would hide the blocks
    blocks = [b for stage in stages for b in stage.blocks[1:]]
    if not blocks:
        raise UserError(
            f'Every residual stage of {type(model).__name__} has one block '
            f'({", ".join(s.blocks[0] for s in stages)}). The first block of '
            'a stage does not count, so there is no stiffness to measure.',
            'Use a deeper variant.',
        )
    current, current_steps = {}, {}
    rows, steps = [], {block: [] for s in stages for block in s.gates}
    hooks = _record(model, stages, current, current_steps)
    with removed(hooks), torch.no_grad():
        for image in images:
            current.clear()
            current_steps.clear()
            model(image)
            rows.append(torch.stack([current[b] for b in blocks], 1))
            for block, value in current_steps.items():
                steps[block].append(value.flatten(1).double().cpu())
    nsi = torch.cat(rows).cpu().numpy()
    finite = np.isfinite(nsi).all(1)
    if not finite.any():
        image, block = np.argwhere(~np.isfinite(nsi))[0]
        raise UserError(
            f'None of {len(nsi)} images gives a finite stiffness; the first '
            f'fails in {blocks[block]}, which moves from a state of zero, or '
            'to one that is infinite or NaN.',
            'Features overflow in half precision: measure in float32.',
        )
    return Trajectories(
        stages,
        blocks,
        nsi[finite],
        {b: torch.cat(v).numpy()[finite] for b, v in steps.items()},
        [int(i) for i in np.flatnonzero(~finite)],
    )


def _first_finite(model: nn.Module, images: list[Tensor]) -> list[Stage]:
    for image in images:
        try:
            return residual_stages(model, image)
        except NotFiniteError as error:
            problem = error
    raise problem


def _record(
    model: nn.Module,
    stages: list[Stage],
    nsi: dict[str, Tensor],
    steps: dict[str, Tensor],
) -> list[RemovableHandle]:
    """Adds hooks that write the NSI and steps of each block into dicts."""

    def record_nsi(
        block: str, module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> None:
        x = first_tensor((*args, *kwargs.values()))
        step = steps.get(block, 1.0)
        nsi[block] = neural_stiffness_index(x, first_tensor(output), step)

    def record_step(
        block: str, module: nn.Module, args: tuple, output: Tensor
    ) -> None:
        steps[block] = output.flatten(1)[..., None, None]

    def record_ratio(block: str, x: Tensor, y: Tensor) -> None:
        steps[block] = channel_ratio(x, y)

    handles = []
    for stage in stages:
        for block, gate in stage.gates.items():
            module = model.get_submodule(gate)
            if isinstance(module, StepAdaptor):
                hook = partial(record_step, block)
                handles.append(module.register_forward_hook(hook))
            else:
                handles += watch_input(module, partial(record_ratio, block))
        for block in stage.blocks[1:]:
            module = model.get_submodule(block)
            hook = partial(record_nsi, block)
            handles.append(
                module.register_forward_hook(hook, with_kwargs=True)
            )
    return handles
