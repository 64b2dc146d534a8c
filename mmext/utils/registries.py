# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Look-ups in MMEngine's registries."""

from __future__ import annotations

from mmengine.registry import Registry


def registered(registry: Registry) -> set[str]:
    """Returns the names in a registry and in its child registries."""
    names = set(registry.module_dict)
    for child in registry.children.values():
        names |= registered(child)
    return names
