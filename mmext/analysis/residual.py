# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the residual stages of any model, and the gates in their blocks.

Blocks are found by their behaviour. A block is *residual* if it returns its
input when all its parameters are zero, because that leaves x of ``x + f(x)``.
A module inside of a block is a *gate* if its output is a multiple of its
input, with one factor per channel and image (SE, ECA, ...), or if it is a
:class:`~mmext.models.StepAdaptor`, whose output is the factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from mmext.errors import UserError
from mmext.models import StepAdaptor

TOLERANCE = 1e-3
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class NotFiniteError(UserError):
    """The model computed infinity or NaN."""


@dataclass
class Stage:
    """The blocks of one stage in the order in which they run.

    Attributes:
        name: Name of the container, such as ``layer3``.
        blocks: Full names of the blocks. The first one can have a projection
            in its shortcut.
        gates: Full name of the gate of each block with attention.
    """

    name: str
    blocks: list[str]
    gates: dict[str, str] = field(default_factory=dict)


class _Call(NamedTuple):
    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    residual: bool

    @property
    def parent(self) -> str:
        return self.name.rpartition('.')[0]


def residual_stages(model: nn.Module, image: Tensor) -> list[Stage]:
    """Finds the stages of a model in evaluation mode by running it.

    Raises `NotFiniteError` if a state is not finite, which hides the blocks,
    and `UserError` if there is no residual block.
    """
    calls = _watch(model, image)
    for call in calls:
        if not (call.x.isfinite().all() and call.y.isfinite().all()):
            raise NotFiniteError(
                f'{type(model).__name__}: the state in {call.name} is '
                'infinite or NaN.',
                'Features overflow in half precision: measure in float32.',
            )
    stages: dict[str, Stage] = {}
    for call in _outermost([c for c in calls if c.residual]):
        stage = stages.setdefault(call.parent, Stage(call.parent, []))
        if call.name not in stage.blocks:
            stage.blocks.append(call.name)
    for call in calls:  # first blocks, which have a projection
        stage = stages.get(call.parent)
        if stage is not None and call.name not in stage.blocks:
            following = model.get_submodule(stage.blocks[0])
            if type(call.module) is type(following):
                stage.blocks.insert(0, call.name)
    if not stages:
        raise UserError(
            f'No residual block in {type(model).__name__}: none of its '
            f'{len({c.name for c in calls})} numbered modules returns its '
            'input when its parameters are zero.',
            'Stiffness is defined for stages of x + f(x).',
        )
    found = list(stages.values())
    _find_gates(model, image, found)
    return found


def _watch(model: nn.Module, image: Tensor) -> list[_Call]:
    """Runs a model and records the calls of its numbered modules."""
    calls: list[_Call] = []
    probing = False

    def record(
        name: str, module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> None:
        nonlocal probing
        x = first_tensor((*args, *kwargs.values()))
        y = first_tensor(output)
        if probing or x is None or y is None:
            return
        probing = True
        residual = x.shape == y.shape and _returns_input(
            module, args, kwargs, x
        )
        probing = False
        calls.append(_Call(name, module, x, y, residual))

    hooks = [
        module.register_forward_hook(partial(record, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name.rpartition('.')[2].isdigit()
        and not isinstance(module, nn.Sequential | nn.ModuleList)
        and _has_children(module)
        and next(module.parameters(), None) is not None
    ]
    with removed(hooks), torch.no_grad():
        model(image)
    return calls


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _returns_input(
    module: nn.Module, args: tuple, kwargs: dict, x: Tensor
) -> bool:
    """Whether a module returns its input if its parameters are zero."""
    zeros = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    before = x.clone()
    try:
        y = first_tensor(functional_call(module, zeros, args, kwargs))
    finally:
        # A module that works in place must not change the run.
        if not torch.equal(x, before):
            x.copy_(before)
    if y is None or y.shape != x.shape:
        return False
    tolerance = TOLERANCE * before.abs().max()
    return any(
        bool((y - expected).abs().max() <= tolerance)
        for expected in (before, before.relu())
    )


def _outermost(calls: list[_Call]) -> list[_Call]:
    """Drops modules that only run blocks in a row, and parts of blocks."""
    blocks = []
    for outer in calls:
        inner = [c for c in calls if c.name.startswith(f'{outer.name}.')]
        starts = any(c.x is outer.x for c in inner)
        ends = any(c.y is outer.y for c in inner)
        if not (starts and ends):
            blocks.append(outer)
    return [
        c
        for c in blocks
        if not any(c.name.startswith(f'{b.name}.') for b in blocks)
    ]


def _find_gates(model: nn.Module, image: Tensor, stages: list[Stage]) -> None:
    """Fills in ``Stage.gates``: what scales f last, before the addition."""
    hooks: list[RemovableHandle] = []
    # Gates of blocks with a projection, which hides the addition of x.
    unproven: list[tuple[Stage, str, str]] = []
    for stage in stages:
        for block in stage.blocks:
            module = model.get_submodule(block)
            hooks += _watch_gates(stage, block, module, unproven)
    with removed(hooks), torch.no_grad():
        model(image)
    for stage, block, gate in unproven:
        known = {g.removeprefix(f'{b}.') for b, g in stage.gates.items()}
        if not known or gate.removeprefix(f'{block}.') in known:
            stage.gates.setdefault(block, gate)


def _watch_gates(
    stage: Stage,
    block: str,
    module: nn.Module,
    unproven: list[tuple[Stage, str, str]],
) -> list[RemovableHandle]:
    """Watches a block for the gate whose output is added to x."""
    scaled: dict[str, Tensor] = {}

    def is_step(name: str, *call: Any) -> None:
        stage.gates[block] = name

    def compare(name: str, x: Tensor, y: Any) -> None:
        if (
            isinstance(y, Tensor)
            and x.shape == y.shape
            and x.dim() == 4
            and x[0, 0].numel() > 1
            and not _same(x, y)
            and _same(channel_ratio(x, y).nan_to_num() * x, y)
        ):
            scaled[name] = y.clone()

    def prove(
        module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> None:
        x = first_tensor((*args, *kwargs.values()))
        y = first_tensor(output)
        for name, f in scaled.items():
            if f.shape != y.shape:
                continue
            if x.shape != y.shape:
                unproven.append((stage, block, name))
            elif _same(x + f, y) or _same((x + f).relu(), y):
                stage.gates[block] = name

    hooks = [module.register_forward_hook(prove, with_kwargs=True)]
    for name, part in module.named_modules():
        full = f'{block}.{name}'
        if isinstance(part, StepAdaptor):
            hooks.append(part.register_forward_hook(partial(is_step, full)))
        elif name and _has_children(part) and not isinstance(part, NORMS):
            hooks += watch_input(part, partial(compare, full))
    return hooks


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal up to the error of a few operations."""
    tolerance = min(1e-2, 50 * torch.finfo(b.dtype).eps)
    return bool((b - a).norm() <= tolerance * b.norm())


def channel_ratio(x: Tensor, y: Tensor) -> Tensor:
    """Computes the factors in y = factor * x, both (N, C, H, W).

    They are the least-squares solution (N, C, 1, 1), and NaN where x is 0.
    """
    x, y = x.double(), y.double()
    square = x.square().sum((2, 3), keepdim=True)
    return (x * y).sum((2, 3), keepdim=True) / square


def first_tensor(value: Any) -> Tensor | None:
    """Returns the first tensor in nested tuples and lists, or None."""
    if isinstance(value, tuple | list):
        found = map(first_tensor, value)
        return next((t for t in found if t is not None), None)
    return value if isinstance(value, Tensor) else None


def watch_input(
    module: nn.Module, hook: Callable[[Tensor, Any], Tensor | None]
) -> list[RemovableHandle]:
    """Calls ``hook(input, output)`` after each call with one tensor.

    The input is a copy from before the call, as modules can work in place.
    If the hook returns a tensor, it replaces the output.
    """
    inputs: list[Tensor] = []

    def before(module: nn.Module, args: tuple) -> None:
        inputs.clear()
        if len(args) == 1 and isinstance(args[0], Tensor):
            inputs.append(args[0].clone())

    def after(module: nn.Module, args: tuple, output: Any) -> Any:
        return hook(inputs.pop(), output) if inputs else None

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after),
    ]


@contextmanager
def removed(handles: list[RemovableHandle]) -> Iterator[None]:
    """Removes hooks at the end of the block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
