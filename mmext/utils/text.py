# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Words and numbers in messages."""

from __future__ import annotations

from collections.abc import Iterable


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few of some names, for a message."""
    names = [str(name) for name in names]
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')
