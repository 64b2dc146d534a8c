# Licensed under the Apache License, Version 2.0. See LICENSE.
"""One optimiser or several (``OptimWrapperDict``), asked alike."""

from __future__ import annotations

from mmengine.optim import OptimWrapper, OptimWrapperDict


def members(wrapper: OptimWrapper) -> list[OptimWrapper]:
    """The wrappers that hold an optimiser each."""
    if isinstance(wrapper, OptimWrapperDict):
        return [*wrapper.values()]
    return [wrapper]


def step_is_done(wrapper: OptimWrapper) -> bool:
    """Whether no gradient is being gathered for a later step."""
    return all(member.should_update() for member in members(wrapper))
