# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads files that others wrote: bytes, JSON and YAML.

All functions raise `UserError` and never wait, fill the memory or exceed
Python's recursion limit, whatever the file is.
"""

from __future__ import annotations

import gc
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmext.errors import UserError

#: Values of a YAML file, each alias counted as what it stands for.
_MOST_VALUES = 1_000_000


def require_regular(path: str | Path) -> None:
    """Raises `UserError` for a pipe, a device or a socket.

    Reading one may wait forever or never end. A path that does not exist
    raises nothing.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # too long, or characters no name has
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(
            f'{path} is a pipe, a device or a socket, and not a file',
            'Write its content into a file, and name that.',
        )


def read_bytes(
    path: str | Path, what: str = 'file', fix: str = 'Check the path.'
) -> bytes:
    """Reads a regular file; ``what`` and ``fix`` are for the message."""
    require_regular(path)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        if isinstance(error, MemoryError):
            reason = 'it does not fit into the memory'
        raise UserError(
            f'{what} {path} cannot be read: {reason}', fix
        ) from error


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Stops Python's cycle collector; a decorator too.

    It looks at the many records of a large file again and again, for half of
    the time that they take.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse_json(data: bytes | str, path: str | Path) -> Any:
    """Parses JSON in UTF-8; a byte order mark is skipped."""
    try:
        text = data if isinstance(data, str) else data.decode('utf-8-sig')
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(data, path, error) from error


def _not_json(
    data: bytes | str, path: str | Path, error: Exception
) -> UserError:
    if isinstance(error, RecursionError):
        return UserError(
            f'{path} is JSON that is nested too deeply',
            'No data have hundreds of levels. Write or download it again.',
        )
    if data[:2] == b'\x1f\x8b':
        return UserError(f'{path} is compressed', f'gunzip {path}')
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return UserError(
            f'{path} is UTF-16, and not UTF-8',
            f'Save it as UTF-8: iconv -f UTF-16 -t UTF-8 {path}',
        )
    is_text = data[:100].lstrip()[:1] in (b'{', b'[')
    if isinstance(error, UnicodeDecodeError) and is_text:
        return UserError(
            f'{path} is not UTF-8: {error}',
            'Save it as UTF-8, from the encoding of the program that wrote '
            f'it; from GBK, for example: iconv -f GBK -t UTF-8 {path}',
        )
    return UserError(
        f'{path} is not JSON: {error}',
        'Is the file complete? Write or download it again.',
    )


def parse_yaml(data: bytes | str, path: str | Path) -> Any:
    """Parses YAML, of which JSON is a part, without Python objects.

    A file whose aliases stand for more than a million values is refused.
    """
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        if root is None:
            return None
        if _values(root, {}) > _MOST_VALUES:
            raise UserError(
                f'{path} is refused: its aliases (&name, *name) stand for '
                f'more than {_MOST_VALUES} values',
                'Write the values themselves, without aliases.',
            )
        return loader.construct_document(root)
    except RecursionError as error:
        raise UserError(
            f'{path} is YAML that is nested too deeply',
            'Write the values without so many levels.',
        ) from error
    # Values that are not of their type raise any of these, as `!!int ""`.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
    ) as error:
        raise UserError(
            f'{path} is not YAML: {error}', 'Correct the file.'
        ) from error
    finally:
        if loader is not None:
            loader.dispose()


def _values(node: Any, known: dict[int, int]) -> int:
    """Counts the values of a YAML node, those of aliases each time."""
    if id(node) not in known:
        if node.tag.endswith(':int') and len(node.value) > 1000:
            raise ValueError('it has a number of thousands of digits')
        inside = node.value if isinstance(node.value, list) else []
        parts = [p for x in inside for p in (x if type(x) is tuple else [x])]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
