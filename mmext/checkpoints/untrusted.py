# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What keeps a checkpoint of unknown origin from doing harm.

A ``.pth`` file is a pickle in a zip file: reading one could run code, fill
the memory, or load something else than what was meant. The checks are used by
:mod:`mmext.checkpoints.read`, which reads.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmext.errors import UserError
from mmext.utils.files import sha256

TRUST = 'MMEXT_TRUST_CHECKPOINT'
#: As torch.hub names files; a date (-20261231.pth) is none.
NAMED_HASH = re.compile(
    r'-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.\w+$'
)

_scalar = np.float64(0).__reduce__()[0]
_reconstruct = np.zeros(0).__reduce__()[0]


def _history_method(owner: type, name: str) -> Callable:
    """What a checkpoint may use ``getattr`` for: the log's statistics."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')


#: What an MMEngine checkpoint holds beside tensors: the history of the log.
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
    """Whether the user asked to unpickle whatever a checkpoint holds."""
    return os.environ.get(TRUST, '0') not in ('', '0')


def require_named_hash(path: Path) -> None:
    """Stops where the hash in a file's name is not the file's.

    Raises:
        UserError: They differ.
    """
    named = NAMED_HASH.search(path.name)
    if named and not (found := sha256(path)).startswith(named[1]):
        raise UserError(
            f'checkpoint {path} was refused: its name says SHA-256 '
            f'{named[1]}, its content has {found[:16]}...',
            'It was cut off or changed: get it again. If that part of the '
            'name is no hash, rename the file.',
        )


def refuse_bomb(path: Path) -> None:
    """Stops where a file would take more memory than it is long.

    torch.save stores every member as it is, once. Compressed members and
    members that share their bytes are how a small file becomes a large one.

    Raises:
        UserError: It would.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # not a zip file; torn bytes end in any of them
        return  # torch.load says what is wrong
    size, grown = path.stat().st_size, sum(m.file_size for m in members)
    packed = sum(bool(m.compress_type) for m in members)
    if packed or grown > size:
        raise UserError(
            f'checkpoint {path} was refused: its {size} bytes would unpack to '
            f'{grown} ({packed} of {len(members)} members are compressed); '
            'torch.save never compresses',
            'Ask its author for the file that torch.save wrote. If you trust '
            'whoever made this one: --trust-checkpoint.',
        )


def globals_wanted(path: Path, message: str) -> list[str]:
    """Names a pickle would call, for the message that refuses it."""
    names: list[str] = []
    inspect = torch.serialization.get_unsafe_globals_in_checkpoint
    allowed = torch.serialization.safe_globals(SAFE_GLOBALS)
    with contextlib.suppress(Exception), allowed:  # torn, or not a zip file
        names = inspect(path)
    return names or re.findall(r'\bGLOBAL ([\w.]+\.[\w.]+)', message)
