# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stiffness of a network's feature trajectories.

Residual blocks of a stage are forward-Euler steps of an ODE; stiffness says
how unevenly the state moves along them. "Understanding Self-attention
Mechanism via Dynamical System Perspective" (Huang et al., ICCV 2023),
definitions 1 and 2 and equations 5 and 6. The paper prints no closed form:
:func:`total_stiffness` derives one from its reading of equation 5 as an
expectation over inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.layers import StepAdaptor

from .residual import (
    NotFiniteError,
    Stage,
    channel_ratio,
    removed,
    residual_stages,
)


def neural_stiffness_index(
    x: Tensor, following: Tensor, step: Tensor | float = 1.0
) -> Tensor:
    """NSI: ``||(x_{t+1} - x_t) / dt|| / ||x_t||`` of each image.

    Sums run in float64, so that half precision does not overflow. Where a
    step is 0, or unknown because f is 0, the state did not move, and 0 / 0
    counts as 0; so it does where the state is zero and stays zero. Where a
    zero state moves, or a state is not finite, the index is NaN or infinite.

    Args:
        x: The state before the block, shape (N, ...).
        following: The state after it.
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
    far, size = moved.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1)
    return torch.where((far == 0) & (size == 0), 0.0, far / size)


def total_stiffness(nsi: np.ndarray) -> np.ndarray:
    """TNS of each image: the integral of its indicator over M1, M2 > 0.

    The trajectory is stiff at (M1, M2) where ``zmax >= mu (1 + M1)`` and
    ``zmax >= M2``: a rectangle of sides ``zmax / mu - 1`` and ``zmax``.

    Args:
        nsi: Shape (images, blocks), the first block of each stage left out.

    Returns:
        Shape (images,); 0 where nothing moves.
    """
    highest, mean = nsi.max(1), nsi.mean(1)
    moving = mean > 0
    return highest * (highest / np.where(moving, mean, 1) - 1) * moving


def stiffness_surface(
    nsi: np.ndarray, m1: np.ndarray, m2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """delta(M) and the stiff ratio p(M) over a grid of thresholds.

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
    """What was measured of one model.

    Attributes:
        stages: The model's residual stages.
        blocks: Names of the columns of ``nsi``: every block but the first
            of its stage.
        nsi: Shape (images, blocks), finite.
        steps: By block with attention (first blocks too), the step sizes,
            shape (images, channels); NaN where f is 0 throughout a channel.
        left_out: Numbers of images whose index was not finite.
    """

    stages: list[Stage]
    blocks: list[str]
    nsi: np.ndarray
    steps: dict[str, np.ndarray]
    left_out: list[int]

    @property
    def tns(self) -> float:
        """Total neural stiffness, the mean over images."""
        return float(total_stiffness(self.nsi).mean())

    @property
    def tns_error(self) -> float:
        """Standard error of :attr:`tns` over images; 0 for one image."""
        values = total_stiffness(self.nsi)
        if len(values) < 2:
            return 0.0
        return float(values.std(ddof=1) / len(values) ** 0.5)


def measure(
    model: nn.Module,
    images: Iterable[Any],
    run: Callable[[nn.Module, Any], Any] = lambda model, x: model(x),
    scope: str = '',
) -> Trajectories:
    """Runs a model over images and gathers its trajectories by hooks.

    Args:
        model: Any model; put into evaluation mode, otherwise unchanged.
        images: What ``run`` takes; sizes may differ from one to the next.
        run: Runs the model on one of them. Default: calls it.
        scope: See :func:`residual_stages`.

    Raises:
        UserError: Without images, where no stage has two residual blocks, or
            where no image gives finite numbers.
    """
    images = list(images)
    if not images:
        raise UserError('There are no images to measure stiffness on.')
    model.eval()
    stages = _first_finite(model, images, run, scope)
    blocks = [b for stage in stages for b in stage.blocks[1:]]
    if not blocks:
        raise UserError(
            f'Every residual stage of {type(model).__name__} has one block '
            f'({", ".join(s.blocks[0] for s in stages)}), and the first of a '
            'stage does not count, so there is no stiffness to measure.',
            'Use a deeper variant.',
        )
    recorder = _Recorder(model, stages)
    rows, steps = [], {block: [] for s in stages for block in s.gates}
    with recorder, torch.no_grad():
        for image in images:
            recorder.clear()
            run(model, image)
            rows.append(torch.stack([recorder.nsi[b] for b in blocks], 1))
            for block, value in recorder.steps.items():
                steps[block].append(value.flatten(1).double().cpu())
    nsi = torch.cat(rows).cpu().numpy()
    finite = np.isfinite(nsi).all(1)
    if not finite.any():
        image, block = np.argwhere(~np.isfinite(nsi))[0]
        raise UserError(
            f'None of {len(nsi)} images gives a finite stiffness; the first '
            f'fails in {blocks[block]}, which moves from a state of zero or '
            'to one that is infinite or NaN.',
            'In half precision features overflow: measure in float32.',
        )
    return Trajectories(
        stages,
        blocks,
        nsi[finite],
        {b: torch.cat(v).numpy()[finite] for b, v in steps.items()},
        [int(i) for i in np.flatnonzero(~finite)],
    )


def _first_finite(
    model: nn.Module, images: list, run: Callable, scope: str
) -> list[Stage]:
    """The stages, found on the first image that gives finite numbers."""
    for image in images:
        try:
            return residual_stages(model, lambda i=image: run(model, i), scope)
        except NotFiniteError as error:
            problem = error
    raise problem


class _Recorder:
    """Hooks on blocks and gates while a model runs."""

    def __init__(self, model: nn.Module, stages: list[Stage]) -> None:
        self.model, self.stages = model, stages
        self.nsi: dict[str, Tensor] = {}
        self.steps: dict[str, Tensor] = {}

    def clear(self) -> None:
        self.nsi, self.steps = {}, {}

    def __enter__(self) -> None:
        handles = []
        for stage in self.stages:
            for i, name in enumerate(stage.blocks):
                block = self.model.get_submodule(name)
                if gate := stage.gates.get(name):
                    handles += self._watch_gate(name, gate)
                if i:
                    handles.append(
                        block.register_forward_hook(
                            self._watch_block(name), with_kwargs=True
                        )
                    )
        self._until = removed(handles)
        self._until.__enter__()

    def __exit__(self, *error) -> None:
        self._until.__exit__(*error)

    def _watch_block(self, name: str) -> Callable:
        def hook(module, args, kwargs, output):
            x = args[0] if args else next(iter(kwargs.values()))
            y = output[0] if isinstance(output, (tuple, list)) else output
            step = self.steps.get(name, 1.0)
            self.nsi[name] = neural_stiffness_index(x, y, step)

        return hook

    def _watch_gate(self, block: str, gate: str) -> list:
        module = self.model.get_submodule(gate)
        if isinstance(module, StepAdaptor):

            def keep(module, args, output):
                self.steps[block] = output.flatten(1)[..., None, None]

            return [module.register_forward_hook(keep)]
        before: list[Tensor] = []

        def save(module, args):
            before[:] = [args[0].clone()]

        def divide(module, args, output):
            self.steps[block] = channel_ratio(before.pop(), output)

        return [
            module.register_forward_pre_hook(save),
            module.register_forward_hook(divide),
        ]
