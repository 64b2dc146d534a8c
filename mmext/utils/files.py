# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes files completely or not at all, and computes their hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path, part: Path | None = None) -> Iterator[Path]:
    """Gives a temporary path that becomes ``path`` when the block ends.

    If the block raises, the temporary file is removed and ``path`` stays as
    it was. ``part`` is the temporary path, in the same folder; by default a
    hidden one with the number of the process.
    """
    path = Path(path)
    part = part or path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, content: object, **options: Any) -> None:
    """Writes a JSON file completely or not at all.

    ``options`` are those of ``json.dumps``, such as ``indent``.
    """
    with replacing(path) as part:
        part.write_text(json.dumps(content, **options), encoding='utf-8')


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def packaged(name: str) -> Path:
    """Returns the folder ``configs`` or ``tools`` that belongs to mmext.

    A clone has them beside the package, an installed wheel inside it.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / '.mim' / name
    return installed if installed.is_dir() else package.parent / name
