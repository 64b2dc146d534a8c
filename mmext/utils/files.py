# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes files completely or not at all, and computes their hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def write_json(file: Path, content: object) -> None:
    """Writes a file whole or not at all."""
    part = file.with_name(f'{file.name}.{os.getpid()}.tmp')
    try:
        part.write_text(json.dumps(content), encoding='utf-8')
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
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
