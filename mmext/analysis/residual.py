# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the residual stages of any model, and the gates in their blocks.

Nothing is asked of a block but behaviour. A block is *residual* if it
returns its input when all its parameters are zero: what is left of
``x + f(x)`` is x. A module inside it is a *gate* if its output is a multiple
of its input, one factor a channel and image (SE, ECA, ...), or if it is a
:class:`~mmext.models.StepAdaptor`, whose output is the factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from mmext.errors import UserError
from mmext.models.layers import StepAdaptor

TOLERANCE = 1e-3


class NotFiniteError(UserError):
    """The model gave infinity or NaN."""


@dataclass
class Stage:
    """Blocks of one stage in the order in which they run.

    Attributes:
        name: Name of the container, such as ``layer3``.
        blocks: Full names of the blocks; the first may have a projection
            for its shortcut.
        gates: For blocks with attention, the full name of the gate.
    """

    name: str
    blocks: list[str]
    gates: dict[str, str] = field(default_factory=dict)


@dataclass
class _Call:
    """One call of a numbered module while the model was watched."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    residual: bool


def residual_stages(
    model: nn.Module, run: Callable[[], Any], scope: str = ''
) -> list[Stage]:
    """The residual stages of a model, found by running it once.

    Args:
        model: A model in evaluation mode; it is not changed.
        run: Runs the model on one image.
        scope: Look only below this module name. Default: everywhere.

    Raises:
        NotFiniteError: Where a state is not finite, which hides the blocks.
        UserError: Where no residual block is found.
    """
    calls = _watch(model, run, scope)
    for call in calls:
        if not (call.x.isfinite().all() and call.y.isfinite().all()):
            raise NotFiniteError(
                f'{type(model).__name__}: the state in {call.name} is '
                'infinite or NaN.',
                'In half precision features overflow: measure in float32.',
            )
    blocks = _outermost(c for c in calls if c.residual)
    stages: dict[str, Stage] = {}
    for call in calls:
        parent = call.name.rpartition('.')[0]
        if any(call is b for b in blocks):
            stage = stages.setdefault(parent, Stage(parent, []))
            if call.name not in stage.blocks:
                stage.blocks.append(call.name)
    for call in calls:  # first blocks, whose shortcut is a projection
        stage = stages.get(call.name.rpartition('.')[0])
        if stage and call.name not in stage.blocks:
            following = model.get_submodule(stage.blocks[0])
            if type(call.module) is type(following):
                stage.blocks.insert(0, call.name)
    if not stages:
        raise UserError(
            f'No residual block in {type(model).__name__}'
            + (f' below {scope!r}' if scope else '')
            + f': none of its {len({c.name for c in calls})} numbered '
            'modules returns its input when its parameters are zero.',
            'Stiffness is defined for stages of x + f(x); check the scope.',
        )
    found = list(stages.values())
    _find_gates(model, run, found)
    return found


def _watch(
    model: nn.Module, run: Callable[[], Any], scope: str
) -> list[_Call]:
    calls: list[_Call] = []
    probing = False

    def watch(name: str) -> Callable:
        def hook(module, args, kwargs, output):
            nonlocal probing
            x, y = (
                _first_tensor((*args, *kwargs.values())),
                _first_tensor((output,)),
            )
            if probing or x is None or y is None:
                return
            probing = True
            same = x.shape == y.shape and _returns_input(
                module, args, kwargs, x
            )
            probing = False
            calls.append(_Call(name, module, x, y, same))

        return hook

    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name.startswith(scope)
        and name.rpartition('.')[2].isdigit()
        and not isinstance(module, (nn.Sequential, nn.ModuleList))
        and len(list(module.children()))
        and any(True for _ in module.parameters())
    ]
    with removed(handles), torch.no_grad():
        run()
    return calls


def _returns_input(
    module: nn.Module, args: tuple, kwargs: dict, x: Tensor
) -> bool:
    zeros = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    before = x.clone()
    try:
        y = _first_tensor((functional_call(module, zeros, args, kwargs),))
    finally:
        # A module that works in place must not disturb the run.
        changed = not torch.equal(x, before)
        if changed:
            x.copy_(before)
    if y is None or y.shape != x.shape:
        return False
    size = before.abs().max()
    return any(
        bool((y - like).abs().max() <= TOLERANCE * size)
        for like in (before, before.relu())
    )


def _outermost(candidates: Iterator[_Call]) -> list[_Call]:
    """Drops modules that only run blocks in a row, and parts of blocks."""
    calls = list(candidates)
    kept = []
    for outer in calls:
        inner = [c for c in calls if c.name.startswith(outer.name + '.')]
        rows = [c for c in inner if c.x is outer.x]
        ends = [c for c in inner if c.y is outer.y]
        if not (rows and ends):
            kept.append(outer)
    return [
        c
        for c in kept
        if not any(c.name.startswith(other.name + '.') for other in kept)
    ]


def _find_gates(
    model: nn.Module, run: Callable[[], Any], stages: list[Stage]
) -> None:
    """Fills in ``Stage.gates``: what scales f last, before the addition."""
    handles, finders = [], []
    for stage in stages:
        for name in stage.blocks:
            finder = _GateFinder(stage, name, model.get_submodule(name))
            finders.append(finder)
            handles += finder.handles
    with removed(handles), torch.no_grad():
        run()
    for finder in finders:  # a projected shortcut: as in the other blocks
        stage, block = finder.stage, finder.block
        known = {gate.removeprefix(b + '.') for b, gate in stage.gates.items()}
        for gate in finder.unproven:
            if not known or gate.removeprefix(block + '.') in known:
                stage.gates.setdefault(block, gate)


class _GateFinder:
    """Watches one block for the gate whose output is added to x."""

    def __init__(self, stage: Stage, block: str, module: nn.Module) -> None:
        self.stage, self.block = stage, block
        self.outputs: dict[str, Tensor] = {}
        self.unproven: list[str] = []
        self.handles = [
            module.register_forward_hook(self._prove, with_kwargs=True)
        ]
        for name, part in module.named_modules():
            full = f'{block}.{name}'
            if isinstance(part, StepAdaptor):
                self.handles.append(
                    part.register_forward_hook(self._adaptor(full))
                )
            elif name and len(list(part.children())) and not _is_norm(part):
                self.handles += self._multiplier(full, part)

    def _adaptor(self, name: str) -> Callable:
        def hook(module, args, output):
            self.stage.gates[self.block] = name

        return hook

    def _multiplier(self, name: str, module: nn.Module) -> list:
        before: list[Tensor] = []

        def save(module, args):
            if len(args) == 1 and isinstance(args[0], Tensor):
                before[:] = [args[0].clone()]  # it may work in place

        def compare(module, args, y):
            x = before.pop() if before else None
            if (
                isinstance(y, Tensor)
                and x is not None
                and x.shape == y.shape
                and x.dim() == 4
                and x[0, 0].numel() > 1
                and (y - x).norm() > _rounding(y) * y.norm()
            ):
                ratio = channel_ratio(x, y).nan_to_num()
                if (y - ratio * x).norm() <= _rounding(y) * y.norm():
                    self.outputs[name] = y.clone()

        return [
            module.register_forward_pre_hook(save),
            module.register_forward_hook(compare),
        ]

    def _prove(self, module, args, kwargs, output) -> None:
        x = _first_tensor((*args, *kwargs.values()))
        y = _first_tensor((output,))
        for name, f in self.outputs.items():
            if f.shape != y.shape:
                continue
            if x.shape != y.shape:
                self.unproven.append(name)
            elif any(
                bool((y - like).norm() <= _rounding(y) * y.norm())
                for like in (x + f, (x + f).relu())
            ):
                self.stage.gates[self.block] = name


def _rounding(x: Tensor) -> float:
    """How far the same number may be off after a few operations."""
    return min(1e-2, 50 * torch.finfo(x.dtype).eps)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm))


def channel_ratio(x: Tensor, y: Tensor) -> Tensor:
    """The factor of each channel, y = factor * x, by least squares.

    Args:
        x: Shape (N, C, H, W).
        y: The same shape.

    Returns:
        Shape (N, C, 1, 1); NaN where x is 0, which tells nothing.
    """
    x, y = x.double(), y.double()
    square = x.square().sum((2, 3), keepdim=True)
    return (x * y).sum((2, 3), keepdim=True) / square


def _first_tensor(values: tuple) -> Tensor | None:
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (tuple, list)) and value:
            return _first_tensor(tuple(value[:1]))
    return None


@contextmanager
def removed(handles: list) -> Iterator[None]:
    """Takes hooks off again at the end, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
