# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mistakes of the user's, told once in the user's language.

Library code raises :class:`UserError`; a tool's ``main`` is wrapped in
:func:`command`, which prints the message alone and exits with status 2::

    @command
    def main() -> None:
        ...

What is *not* a ``UserError`` is a bug and keeps its traceback.
``MMEXT_DEBUG=1`` shows the traceback of every error.

Where MMDetection is missing, ``import mmext`` raises before a tool has a
``main``; then :func:`told_alone` prints it.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NoReturn, TypeVar

T = TypeVar('T')


class UserError(Exception):
    """Something the user can mend: what was wrong, where, what to do.

    Args:
        problem: What was wrong, where, and the value seen.
        fix: What to do about it. Default: none.
    """

    def __init__(self, problem: str, fix: str = '') -> None:
        self.problem, self.fix = problem, fix
        super().__init__(f'{problem}\n  -> {fix}' if fix else problem)

    def __reduce__(self) -> tuple:
        return type(self), (self.problem, self.fix)


class MissingPackagesError(UserError, ImportError):
    """mmext cannot be imported without these packages."""


def nearest(
    word: str, choices: Iterable[str], cutoff: float = 0.5
) -> str | None:
    """The choice that ``word`` becomes with the fewest edits.

    Args:
        word: What was written.
        choices: What could have been meant.
        cutoff: Least likeness by difflib, in 0..1. It alone would take
            ``s150`` for nearer to ``s5`` than ``s4`` is, since it counts
            what two words share. Default: 0.5.

    Returns:
        None where nothing is near.
    """
    word = str(word).lower()
    by_lower = {str(c).lower(): str(c) for c in choices}
    alike = difflib.get_close_matches(
        word, by_lower, max(len(by_lower), 1), cutoff
    )
    best = min(alike, key=lambda other: _edits(word, other), default=None)
    return None if best is None else by_lower[best]


def _edits(word: str, other: str) -> int:
    """Letters to exchange, add or remove."""
    steps = difflib.SequenceMatcher(None, word, other).get_opcodes()
    return sum(
        max(i2 - i1, j2 - j1)
        for kind, i1, i2, j1, j2 in steps
        if kind != 'equal'
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``'Did you mean 'StarNet'?'``, or the empty string."""
    found = nearest(word, choices)
    return f'Did you mean {found!r}?' if found else ''


def fail(problem: object, status: int = 2) -> NoReturn:
    """Prints one message to stderr and exits."""
    rank = os.environ.get('RANK', '0')
    where = '' if rank == '0' else f' (rank {rank})'
    if where:
        # Rank 0 has most likely met the same and is about to say it; its
        # end ends this process too.
        time.sleep(20)
    print(f'\nerror{where}: {problem}', file=sys.stderr, flush=True)
    raise SystemExit(status)


def _debugging() -> bool:
    return os.environ.get('MMEXT_DEBUG', '0') not in ('', '0')


def told_alone(
    kind: type[BaseException], error: BaseException, trace: TracebackType
) -> None:
    """A ``sys.excepthook`` for a script that mmext cannot be imported by."""
    if isinstance(error, UserError) and not _debugging():
        fail(error)
    sys.__excepthook__(kind, error, trace)


def command(main: Callable[..., T]) -> Callable[..., T]:
    """Wraps a tool's ``main``: a ``UserError`` becomes one message.

    So does a ``PermissionError``, which any path of the user's can end in.
    """

    @functools.wraps(main)
    def run(*args, **kwargs) -> T:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if _debugging():
                raise
            fail(error)
        except PermissionError as error:
            if _debugging():
                raise
            fail(f'{error}\n  -> Ask its owner for it, or name another.')
        except KeyboardInterrupt:
            fail('interrupted (Ctrl-C)', status=130)

    return run
