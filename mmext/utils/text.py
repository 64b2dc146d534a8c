# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Words and numbers in messages and tables."""

from __future__ import annotations

from collections.abc import Iterable


def short(value: object, limit: int = 60) -> str:
    """Returns ``repr(value)``, cut after ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else f'{text[: limit - 3]}...'


def some(names: Iterable[object], limit: int = 5) -> str:
    """Joins the first names with commas; ``...`` stands for the others."""
    names = [str(name) for name in names]
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')


def count(number: int, noun: str) -> str:
    """Returns ``'1 image'`` or ``'2 images'``."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def duration(seconds: float | None) -> str:
    """Returns ``1 h 02 min``, ``3 min 20 s`` or ``12 s``; ``-`` for None."""
    if seconds is None:
        return '-'
    seconds = round(seconds)
    if seconds >= 3600:
        return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'
    if seconds >= 60:
        return f'{seconds // 60} min {seconds % 60:02d} s'
    return f'{seconds} s'
