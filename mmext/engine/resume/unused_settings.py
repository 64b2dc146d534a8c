# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds the values of a config that a resumed run does not use.

MMEngine restores the complete state of the optimizer and of the schedules,
their arguments included. A config with another learning rate or a longer
schedule has no effect after ``--resume``, and MMEngine does not say so.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

# Arguments of a schedule that are its progress or its output, not settings.
_PROGRESS = {'self', 'optimizer', 'last_step', 'verbose', 'args', 'kwargs'}


def unused_settings(runner: Runner, checkpoint: Mapping[str, Any]) -> str:
    """Returns a warning that names these values, or an empty string.

    Call it before the state of the optimizer and of the schedules is loaded.
    """
    lines: list[str] = []
    optimizers = _parts(
        'optim_wrapper', runner.optim_wrapper, checkpoint.get('optimizer')
    )
    for place, wrapper, state in optimizers:
        lines += _optimizer(place, wrapper, state or {})
    schedules = _parts(
        'param_scheduler',
        runner.param_schedulers,
        checkpoint.get('param_schedulers'),
    )
    for place, schedulers, states in schedules:
        lines += _schedules(place, schedulers or [], states or [])
    if not lines:
        return ''
    return (
        '--resume continues with the optimizer and the schedules of the '
        'checkpoint, and these values of the config are not used: '
        f'{"; ".join(lines)}. To use them, start from the weights of the '
        f'checkpoint: --cfg-options load_from={runner._load_from}, without '
        '--resume'
    )


def _parts(place: str, own: Any, saved: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields place, part and saved state of each optimizer."""
    if isinstance(own, OptimWrapperDict | Mapping):
        for name, part in own.items():
            state = saved.get(name) if isinstance(saved, Mapping) else None
            yield f'{place}.{name}', part, state
    else:
        yield place, own, saved


def _optimizer(
    place: str, wrapper: OptimWrapper, state: Mapping[str, Any]
) -> Iterator[str]:
    seen = set()
    groups = zip(
        wrapper.param_groups, state.get('param_groups', ()), strict=False
    )
    for own, theirs in groups:
        names = (own.keys() & theirs.keys()) - {'params'} - seen
        for name in sorted(names):
            if name.startswith('initial_'):
                continue
            # A schedule changes the value and keeps the initial one.
            before, now = (
                group.get(f'initial_{name}', group[name])
                for group in (theirs, own)
            )
            if not _same(before, now):
                seen.add(name)
                yield (
                    f'{place}.optimizer.{name}={_text(now)} (the checkpoint '
                    f'has {_text(before)})'
                )


def _schedules(
    place: str, schedulers: Sequence[Any], saved: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    for i, (own, theirs) in enumerate(zip_longest(schedulers, saved)):
        if own is None:
            yield f'{place} has {i} entries (the checkpoint has {len(saved)})'
            return
        kind = type(own).__name__
        now = own.state_dict()
        names = _arguments(own) & now.keys()
        if theirs is None:
            yield (
                f'{place}.{i}: the checkpoint has no state of this {kind}, '
                'which begins with its first step'
            )
        elif not names <= theirs.keys():
            yield (
                f'{place}.{i}: the checkpoint has the state of another kind '
                f'of schedule than {kind}, which begins with the learning '
                'rate of the checkpoint'
            )
        else:
            for name in sorted(names):
                if not _same(theirs[name], now[name]):
                    yield (
                        f'{place}.{i} ({kind}) {name}={_text(now[name])} (the '
                        f'checkpoint has {_text(theirs[name])})'
                    )


def _arguments(scheduler: Any) -> set[str]:
    """Returns the names of the arguments of a schedule and its bases."""
    names: set[str] = set()
    for cls in type(scheduler).__mro__[:-1]:
        names |= inspect.signature(cls.__init__).parameters.keys()
    return names - _PROGRESS


def _same(before: Any, now: Any) -> bool:
    numbers = int | float
    if isinstance(before, numbers) and isinstance(now, numbers):
        return math.isclose(before, now, rel_tol=1e-9)
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # the milestones of MultiStepLR
        value = sorted(value)
    return f'{value:g}' if isinstance(value, float) else str(value)
