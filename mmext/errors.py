# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Errors that a user can fix, and how the tools print them.

Library code raises :class:`UserError`. A tool wraps its ``main`` in
:func:`command`, which prints the message without a traceback and exits with
status 2::

    @command
    def main() -> None:
        ...

Any other exception is a bug and keeps its traceback. ``MMEXT_DEBUG=1`` shows
the traceback of every error.
"""

from __future__ import annotations

import difflib
import errno
import functools
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar('T')
HOSTS = ('mmengine', 'mmcv', 'mmdet')
#: What a terminal obeys, and what UTF-8 cannot write; not tab and newline.
_CONTROL = re.compile(
    '[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)


def printable(text: object) -> str:
    r"""Returns a text that a terminal only shows, and obeys in nothing.

    Names in files of others may hold escape sequences, which could rename the
    window or hide a line. They become visible: ``\x1b[31m``.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


class UserError(Exception):
    """An error that the user can fix.

    Args:
        problem: What is wrong, where, and the value that was seen.
        fix: What to do about it. Default: none.
    """

    def __init__(self, problem: str, fix: str = '') -> None:
        problem, fix = (
            re.sub(r'(\S{200})\S{800,}', r'\1...', printable(text))
            for text in (problem, fix)
        )
        self.problem, self.fix = problem, fix
        super().__init__(f'{problem}\n  -> {fix}' if fix else problem)

    def __reduce__(self) -> tuple:
        return type(self), (self.problem, self.fix)


#: errno -> what to do about a failing disk.
_DISK = {
    errno.ENOSPC: 'Free some space',
    errno.EDQUOT: 'Your quota is used up: free some space, or raise it',
    errno.EROFS: 'The file system is read-only: mount it for writing',
    errno.ESTALE: 'The file server has replaced the folder: mount it again',
    errno.ENOENT: 'The folder was removed or moved: bring it back',
}


def disk_fix(error: OSError) -> str:
    """Returns what to do if a file could not be written, without a period."""
    return _DISK.get(error.errno) or (
        'The disk, or the connection to it, has failed, and more space does '
        'not help: see the log of the system (dmesg)'
    )


def is_disk_error(error: OSError) -> bool:
    """Whether the disk has failed, and not the file or its name."""
    known = {*_DISK, errno.EIO} - {errno.ENOENT}
    return error.errno in known


class MissingPackagesError(UserError, ImportError):
    """MMDetection, or a package that it needs, is not installed."""

    @staticmethod
    def explains(error: ModuleNotFoundError) -> bool:
        """Whether an import failed because such a package is missing."""
        package = str(error.name).partition('.')[0]
        return package in HOSTS and find_spec(package) is None

    def __init__(self) -> None:
        missing = [name for name in HOSTS if find_spec(name) is None]
        clone = Path(__file__).resolve().parents[1]
        # pip knows the extras of an installed wheel by name.
        this = f"-e '{clone}" if (clone / 'setup.py').is_file() else "'mmext"
        super().__init__(
            f'mmext needs {", ".join(missing)}, not found in this environment',
            f"pip install {this}[onedl]' (the maintained builds), or "
            f"pip install {this}[openmmlab]' (the official ones). Never "
            'both: they install the same modules. More: mmext doctor',
        )

    def __reduce__(self) -> tuple:
        return type(self), ()


def nearest(
    word: str, choices: Iterable[str], cutoff: float = 0.5
) -> str | None:
    """Returns the choice that needs the fewest edits from ``word``.

    Returns None if difflib finds no choice as similar as ``cutoff`` (0 to 1).
    Similarity alone would prefer ``s150`` to ``s4`` for ``s5``, because it
    counts common letters.
    """
    word = str(word).lower()
    by_lower = {c.lower(): c for c in sorted(map(str, choices))}
    similar = difflib.get_close_matches(
        word, by_lower, max(len(by_lower), 1), cutoff
    )
    best = min(similar, key=lambda other: _edits(word, other), default=None)
    return None if best is None else by_lower[best]


def _edits(word: str, other: str) -> int:
    """Counts the letters to replace, insert or delete."""
    steps = difflib.SequenceMatcher(None, word, other).get_opcodes()
    return sum(
        max(i2 - i1, j2 - j1)
        for kind, i1, i2, j1, j2 in steps
        if kind != 'equal'
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns ``"Did you mean 'StarNet'?"``, or an empty string."""
    found = nearest(word, choices)
    return f'Did you mean {found!r}?' if found else ''


def fail(problem: object, status: int = 2) -> NoReturn:
    """Prints one message to stderr and exits."""
    rank = os.environ.get('RANK', '0')
    where = '' if rank == '0' else f' (rank {rank})'
    print(f'\nerror{where}: {problem}', file=sys.stderr, flush=True)
    raise SystemExit(status)


def debugging() -> bool:
    """Whether ``MMEXT_DEBUG`` is set."""
    return os.environ.get('MMEXT_DEBUG', '0') not in ('', '0')


def _output_is_closed() -> bool:
    """Whether the reader of the output, such as ``head``, has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always polled for
    return any(events & select.POLLERR for _, events in poll.poll(0))


def command(main: Callable[..., T]) -> Callable[..., T]:
    """Wraps the ``main`` of a tool: errors of the user become one message.

    These errors are ``UserError``, ``PermissionError``, a missing MMDetection
    and Ctrl-C. A tool whose output nothing reads any more ends silently.
    """

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> T:
        # A lone surrogate, which a file name may hold, has no encoding.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors='backslashreplace')
        try:
            result = main(*args, **kwargs)
            sys.stdout.flush()
            return result
        except UserError as error:
            if debugging():
                raise
            fail(error)
        except PermissionError as error:
            if debugging():
                raise
            fail(f'{error}\n  -> Ask its owner for access, or use another.')
        except BrokenPipeError:
            if debugging() or not _output_is_closed():
                raise  # another pipe
            # Python flushes the output once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            if debugging():
                raise
            if is_disk_error(error):
                where = '' if error.filename else ' (in a file without a name)'
                fail(
                    f'{error}{where}\n  -> {disk_fix(error)}, then run the '
                    'same command again.'
                )
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = os.path.basename(str(error.filename))
            fail(
                UserError(
                    f'the file name {name!r} has {len(name)} characters, more '
                    'than the file system takes',
                    'Use a shorter name.',
                )
            )
        except ModuleNotFoundError as error:
            if debugging() or not MissingPackagesError.explains(error):
                raise
            fail(MissingPackagesError())
        except KeyboardInterrupt:
            fail('interrupted (Ctrl-C)', status=130)

    return run
