# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of checkpoint files from unknown sources.

A ``.pth`` file is a pickle in a zip file. Reading it could run code, fill the
memory, or load another file than expected.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmext.errors import UserError
from mmext.utils.files import sha256

#: The environment variable with which a user trusts every checkpoint.
TRUST = 'MMEXT_TRUST_CHECKPOINT'
_trusting = ContextVar('trusting', default=False)
#: As torch.hub names files; a date (-20261231.pth) is not a hash.
NAMED_HASH = re.compile(
    r'-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.\w+$'
)

_scalar = np.float64(0).__reduce__()[0]
_reconstruct = np.zeros(0).__reduce__()[0]


def _history_method(owner: type, name: str) -> Callable:
    """Replaces ``getattr``: gives only the statistics of the log."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')


#: What an MMEngine checkpoint has beside tensors: the history of the log.
SAFE_GLOBALS = [
    (_history_method, 'builtins.getattr'),
    HistoryBuffer,
    np.dtype,
    np.ndarray,
    _scalar,
    _reconstruct,
    *{type(np.dtype(kind)) for kind in '?bhilqBHILQefd'},
]


def trusted() -> bool:
    """Returns whether any code in a checkpoint may run."""
    return _trusting.get() or os.environ.get(TRUST, '0') not in ('', '0')


@contextlib.contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Trusts every checkpoint inside of the block; False changes nothing."""
    token = _trusting.set(trust or _trusting.get())
    try:
        yield
    finally:
        _trusting.reset(token)


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


def refuse_bomb(path: Path) -> None:
    """Raises ``UserError`` if a file would need more memory than its size.

    ``torch.save`` stores every member uncompressed, once. Compressed members
    and members that share their bytes let a small file fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # not a zip file, or damaged
        return  # torch.load raises the error
    size, grown = path.stat().st_size, sum(m.file_size for m in members)
    packed = sum(bool(m.compress_type) for m in members)
    if packed or grown > size:
        raise UserError(
            f'checkpoint {path} was refused: its {size} bytes would unpack to '
            f'{grown} ({packed} of {len(members)} members are compressed); '
            'torch.save never compresses',
            'Ask its author for the file that torch.save wrote. If you trust '
            'the author of this one: --trust-checkpoint.',
        )


def globals_wanted(path: Path, message: str) -> list[str]:
    """Returns the names that a pickle would call, for the error message."""
    names: list[str] = []
    inspect = torch.serialization.get_unsafe_globals_in_checkpoint
    allowed = torch.serialization.safe_globals(SAFE_GLOBALS)
    with contextlib.suppress(Exception), allowed:  # damaged, or not a zip file
        names = inspect(path)
    return names or re.findall(r'\bGLOBAL ([\w.]+\.[\w.]+)', message)
