# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Look-ups in MMEngine's registries, and errors that name the mistake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmengine.registry import DefaultScope, Registry

from mmext.errors import UserError, did_you_mean, nearest
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
        raise not_registered(kind, registry, place, scope)
    return cls


def not_registered(
    name: object, registry: Registry, place: str, scope: str | None = None
) -> UserError:
    """Returns an error with the nearest name in a registry.

    A class of another package than that of ``scope`` (None is the default
    scope) is given with the scope of its own.
    """
    if scope is None:
        default = DefaultScope.get_current_instance()
        scope = default.scope_name if default else ''
    bare = str(name).rpartition('.')[2]
    own = {*registry.module_dict}
    others: dict[str, list[str]] = {}
    for child in registry.children.values():
        if child.scope == scope:
            own |= _names(child)
            continue
        for other in _names(child):
            others.setdefault(other, []).append(f'{child.scope}.{other}')
    if bare in others and bare not in own:
        # A similar name of the same package may be meant.
        near = nearest(bare, own, 0.88)
        known = [repr(n) for n in [near, *sorted(others[bare])] if n]
        fix = f'Did you mean {" or ".join(known)}?'
    else:
        near = nearest(bare, own | others.keys())
        if near and near not in own:
            near = sorted(others[near])[0]
        fix = f'Did you mean {near!r}?' if near else ''
    return UserError(
        f'{place}: {name!r} is not registered',
        fix or 'Is the module that defines it in custom_imports?',
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
