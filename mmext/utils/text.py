# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Words and numbers in messages and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from mmext.errors import printable


def short(value: object, limit: int = 60) -> str:
    """Returns ``repr(value)``, cut after ``limit`` characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # too deep, or too many digits
        text = f'a {type(value).__name__}'
    return text if len(text) <= limit else f'{text[: limit - 3]}...'


def some(names: Iterable[object], limit: int = 5) -> str:
    """Joins the first names with commas, and counts the others.

    Names in files of others are made :func:`~mmext.errors.printable`.
    """
    names = [printable(name) for name in names]
    text = ', '.join(names[:limit])
    left = len(names) - limit
    return f'{text} and {left} more' if left > 0 else text


def pieces(name: str) -> list[str]:
    """Splits a name after spaces (but ``95 %`` is one) and ``._/+-``."""
    return re.findall(r'.+?(?:[._/+-]+| (?!%)|$)', name)


def fold(name: str, width: int) -> str:
    """Breaks a name into lines of at most ``width`` letters, if possible."""
    lines = ['']
    for piece in pieces(name):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append('')
        lines[-1] += piece
    return '\n'.join(line.rstrip() for line in lines)


def sentences(*texts: str) -> str:
    """Joins the texts that are not empty with spaces."""
    return ' '.join(text for text in texts if text)


def count(number: int, noun: str, plural: str = '') -> str:
    """Returns ``'1 image'`` or ``'2 images'``."""
    return f'{number} {noun if number == 1 else plural or noun + "s"}'


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


def points(
    value: float | None, sign: bool = True, missing: str = 'n/a'
) -> str:
    """Returns a share in AP points: ``'+1.2'`` for 0.012.

    None, nan and infinity become ``missing``.
    """
    if value is None or not math.isfinite(value):
        return missing
    if round(100 * value, 1) == 0:
        return '0.0'
    return f'{100 * value:+.1f}' if sign else f'{100 * value:.1f}'


def points_range(ends: tuple[float, float]) -> str:
    """Returns an interval in AP points: ``'[+0.4, +2.0]'``, or ``'n/a'``."""
    if not all(map(math.isfinite, ends)):
        return 'n/a'
    return f'[{points(ends[0])}, {points(ends[1])}]'


def p_value(p: float) -> str:
    """Returns ``'0.012'``, ``'<0.001'``, or ``'n/a'`` for nan."""
    if not math.isfinite(p):
        return 'n/a'
    return f'{p:.3f}' if p >= 0.001 else '<0.001'
