# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Look-ups in MMEngine's registries, and errors that name the mistake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmengine.registry import Registry

from mmext.errors import UserError, did_you_mean
from mmext.utils.text import sentences


def find_class(kind: Any, registry: Registry, scope: str, place: str) -> type:
    """Returns the class that a ``type`` in a config names, or is.

    Raises `UserError` if it is not registered.
    """
    cls = kind
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as scoped:
            cls = scoped.get(kind)
    if cls is None:
        raise not_registered(kind, registry, place)
    return cls


def not_registered(name: object, registry: Registry, place: str) -> UserError:
    """Returns an error with the nearest name in a registry."""
    return UserError(
        f'{place}: {name!r} is not registered',
        did_you_mean(str(name), _names(registry))
        or 'Is the module that defines it in custom_imports?',
    )


def unknown_argument(
    name: str, kind: object, arguments: Iterable[str], place: str
) -> UserError:
    """Returns an error with the nearest argument of a class."""
    known = f'It takes: {", ".join(arguments)}.'
    return UserError(
        f'{place}: {kind} takes no argument {name!r}',
        sentences(did_you_mean(name, arguments), known),
    )


def _names(registry: Registry) -> set[str]:
    """Returns the names in a registry and in its child registries."""
    names = set(registry.module_dict)
    for child in registry.children.values():
        names |= _names(child)
    return names
