# Licensed under the Apache License, Version 2.0. See LICENSE.
"""One interface to a single optimizer and to an ``OptimWrapperDict``."""

from __future__ import annotations

from mmengine.optim import OptimWrapper, OptimWrapperDict


def members(wrapper: OptimWrapper) -> list[OptimWrapper]:
    """Returns the wrappers that hold one optimizer each."""
    if isinstance(wrapper, OptimWrapperDict):
        return [*wrapper.values()]
    return [wrapper]


def step_is_done(wrapper: OptimWrapper) -> bool:
    """Returns whether no gradient is accumulated for a later step."""
    return all(member.should_update() for member in members(wrapper))
