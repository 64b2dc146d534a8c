# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which checkpoint files are trusted, by their SHA-256.

The code in a file runs only if the user has named the SHA-256 of the file:
inside :func:`trusting` (``--trust-checkpoint``) or in
``MMEXT_TRUST_CHECKPOINT``. A file whose name ends in ``-<8 or more digits of
its SHA-256>`` must have that hash.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from mmext.errors import UserError
from mmext.utils.files import sha256

#: The environment variable with the SHA-256 of trusted checkpoints.
TRUST = 'MMEXT_TRUST_CHECKPOINT'
_trusted: ContextVar[frozenset[str]] = ContextVar(
    'trusted', default=frozenset()
)
#: As torch.hub names files; a date (-20261231.pth) is not a hash.
NAMED_HASH = re.compile(
    r'-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.\w+$'
)


def is_trusted(path: Path) -> bool:
    """Returns whether any code in a file may run."""
    named = re.findall('[0-9a-f]{64}', os.environ.get(TRUST, '').lower())
    digests = _trusted.get().union(named)
    return bool(digests) and path.is_file() and sha256(path) in digests


@contextlib.contextmanager
def trusting(digests: str | Sequence[str] = ()) -> Iterator[None]:
    """Trusts the files with these SHA-256 inside of the block."""
    digests = [digests] if isinstance(digests, str) else digests
    # True meant every file, before it had to be named.
    digests = [str(digests)] if digests is True else digests or ()
    for digest in digests:
        if not re.fullmatch('[0-9a-fA-F]{64}', digest):
            raise UserError(
                f'--trust-checkpoint {digest}: not 64 hexadecimal digits',
                'It takes the SHA-256 of the file, which sha256sum prints.',
            )
    known = _trusted.get()
    token = _trusted.set(known.union(digest.lower() for digest in digests))
    try:
        yield
    finally:
        _trusted.reset(token)


def require_named_hash(path: Path) -> None:
    """Raises ``UserError`` if a file does not have the hash in its name."""
    named = NAMED_HASH.search(path.name)
    if named and not (found := sha256(path)).startswith(named[1]):
        raise UserError(
            f'checkpoint {path} was refused: its name says SHA-256 '
            f'{named[1]}, its content has {found[:16]}...',
            'It was truncated or changed: download it again. If that part of '
            'the name is not a hash, rename the file.',
        )
