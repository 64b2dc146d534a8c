# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes files completely or not at all, and computes their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmext.errors import is_disk_error


@contextmanager
def replacing(path: str | Path, part: Path | None = None) -> Iterator[Path]:
    """Gives a temporary path that becomes ``path`` when the block ends.

    If the block raises, the temporary file is removed and ``path`` stays as
    it was. ``part`` is the temporary path, in the same folder; by default a
    hidden one with the number of the process.
    """
    path = Path(path)
    part = part or path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    part.unlink(missing_ok=True)  # a link would lead the write elsewhere
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        # Writing and flushing name no file.
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, content: object, **options: Any) -> None:
    """Writes a JSON file completely or not at all.

    ``options`` are those of ``json.dumps``, such as ``indent``.
    """
    with replacing(path) as part:
        part.write_text(json.dumps(content, **options), encoding='utf-8')


#: Size and times of a file, None if it does not exist.
Stamp = tuple[int, int, int] | None


def stamp(path: str | Path) -> Stamp:
    """Returns what changes whenever a file is written or replaced.

    The time of the last change of the file's entry is among it, which tools
    that copy the time of writing (``cp -p``, ``rsync``) cannot set.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # such as a name of odd characters
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stamps(paths: Sequence[str]) -> list[Stamp]:
    """Returns the stamps of many files; several at once, for network disks."""
    parts = [paths[i : i + 2000] for i in range(0, len(paths), 2000)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda part: [stamp(p) for p in part], parts)
        return [one for part in found for one in part]


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def naming(folder: str | Path) -> Iterator[None]:
    """Names a folder in errors of the disk that name no file."""
    try:
        yield
    except OSError as error:
        if is_disk_error(error) and not error.filename:
            error.filename = f'{folder} or {tempfile.gettempdir()}'
        raise


def stays_inside(path: str | Path, folder: str | Path) -> bool:
    """Returns whether a path leads to a folder or into it, by its name.

    A symbolic link may lead anywhere.
    """
    root = os.path.abspath(folder)
    return os.path.commonpath([root, os.path.abspath(path)]) == root


def relative_names(paths: Sequence[str]) -> list[str]:
    """Returns paths relative to the folder that all of them are in."""
    paths = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(p, folder)).as_posix() for p in paths]


def packaged(name: str) -> Path:
    """Returns the folder ``configs`` or ``tools`` that belongs to mmext.

    A clone has them beside the package, an installed wheel inside it.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / '.mim' / name
    return installed if installed.is_dir() else package.parent / name
