# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads checkpoint files without running the code in them.

A ``.pth`` file is a pickle in a zip file. Reading it could run code, fill the
memory, or load another file than expected. A pickle that needs more than
tensors and plain containers is refused, unless the user trusts the file
(:mod:`mmext.checkpoints.trust`).

MMEngine's checkpoints also hold the text of their config, which MMEngine
would execute. It is removed from a file that is not trusted.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmext.checkpoints.tensors import require_checksums, require_sizes
from mmext.checkpoints.trust import TRUST, is_trusted, require_named_hash
from mmext.errors import UserError, did_you_mean
from mmext.utils.files import sha256
from mmext.utils.text import short

MapLocation = str | torch.device | Callable | None

_scalar = np.float64(0).__reduce__()[0]
_reconstruct = np.zeros(0).__reduce__()[0]

#: Classes in MMEngine's checkpoints -> their functions that pickles hold.
FUNCTIONS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _function_of(owner: Any, name: str) -> Callable:
    """Replaces ``getattr``: gives only what :data:`FUNCTIONS` lists."""
    if isinstance(owner, type) and name in FUNCTIONS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')


#: What an MMEngine checkpoint has beside tensors: the history of the log, and
#: the state of schedules.
SAFE_GLOBALS = [
    (_function_of, 'builtins.getattr'),
    *FUNCTIONS,
    np.dtype,
    np.ndarray,
    _scalar,
    _reconstruct,
    *{type(np.dtype(kind)) for kind in '?bhilqBHILQefd'},
]


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
            f'the author of this one: --trust-checkpoint {sha256(path)}',
        )


def globals_wanted(path: Path, message: str) -> list[str]:
    """Returns the names that a pickle would call, for the error message."""
    names: list[str] = []
    inspect = torch.serialization.get_unsafe_globals_in_checkpoint
    allowed = torch.serialization.safe_globals(SAFE_GLOBALS)
    with contextlib.suppress(Exception), allowed:  # damaged, or not a zip file
        names = inspect(path)
    return names or re.findall(r'\bGLOBAL ([\w.]+\.[\w.]+)', message)


class UntrustedCheckpointError(UserError):
    """The file is complete, but reading it would call unknown code."""


def load_from_local(
    filename: str | Path, map_location: MapLocation = None
) -> dict:
    """:func:`load` for files, as MMEngine calls it."""
    map_location = map_location or 'cpu'
    path = _existing(filename)
    require_named_hash(path)
    if path.suffix == '.safetensors':
        checkpoint = _load_safetensors(path, map_location)
    elif is_trusted(path):
        return torch.load(path, map_location, weights_only=False)
    else:
        checkpoint = _unpickle(path, map_location)
    require_checksums(checkpoint, str(path))
    return checkpoint


def peek(path: Path) -> dict:
    """Reads a ``.pth`` file as `load` does, except its tensors.

    They are mapped to the file, without a comparison of their checksums.
    """
    if is_trusted(path):
        return torch.load(path, 'cpu', weights_only=False, mmap=True)
    return _unpickle(path, 'cpu', mmap=True)


def defect(path: str | Path, with_tensors: bool = True) -> str | None:
    """Returns what is wrong with a checkpoint file, or None.

    Reads the file to its end and compares the checksums that ``torch.save``
    stores with every tensor, which ``torch.load`` does not. It finds truncated
    files and flipped bits. Without the tensors, it reads all else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith('data.pkl')]
            if not names:
                return 'no data.pkl in it'
            if not with_tensors:
                archive.read(names[0])  # raises if its checksum is wrong
                return None
            bad = archive.testzip()
            return f'checksum of {bad} is wrong' if bad else None
    except Exception as error:  # zipfile raises many kinds on damaged files
        return str(error) or type(error).__name__


def _unpickle(
    path: Path, map_location: MapLocation, mmap: bool = False
) -> dict:
    refuse_bomb(path)
    with path.open('rb') as file:
        is_zip = file.read(2) == b'PK'
    # torch's older formats have no checksums.
    if is_zip and (why := defect(path, with_tensors=not mmap)):
        raise _unreadable(path, why)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(
                path, map_location, weights_only=True, mmap=mmap
            )
    except pickle.UnpicklingError as error:
        wanted = globals_wanted(path, str(error))
        if not wanted:
            raise _unreadable(path, error) from error
        digest = sha256(path)
        raise UntrustedCheckpointError(
            f'checkpoint {path} was refused: loading it would call '
            f'{", ".join(wanted)}, which can run any code (SHA-256 '
            f'{digest})',
            'Ask its author for only the weights (a plain state_dict or '
            '.safetensors). If you trust the author of this file: '
            f'--trust-checkpoint {digest}, or {TRUST}={digest}',
        ) from error
    except MemoryError as error:
        raise UserError(
            f'checkpoint {path} ({path.stat().st_size} bytes) was refused: it '
            'needs more memory than there is',
            'No correct file of this size does. Get it from its author again.',
        ) from error
    except Exception as error:  # pickle raises many kinds on damaged files
        raise _unreadable(path, error) from error
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'checkpoint {path} holds a {type(checkpoint).__name__}, not a '
            'dict with a state_dict',
            "Save it with torch.save({'state_dict': model.state_dict()}).",
        )
    require_sizes(checkpoint, str(path), path.stat().st_size)
    return without_config(checkpoint, str(path))


#: The containers of a checkpoint: where they are, and what they must be.
_DICTS = (
    ('state_dict',),
    ('meta',),
    ('meta', 'dataset_meta'),
    ('message_hub',),
    ('message_hub', 'runtime_info'),
)


def without_config(checkpoint: dict, name: str) -> dict:
    """Removes the text of the config, which MMEngine would execute.

    ``Runner.resume`` executes ``meta.config``, and its inferencers execute
    ``message_hub.runtime_info.cfg`` or ``meta.cfg``.
    """
    for place in _DICTS:
        value: Any = checkpoint
        for key in place:
            value = value.get(key) if value is not None else None
        if value is not None and not isinstance(value, dict):
            raise UserError(
                f'checkpoint {name}: {".".join(place)} is a '
                f'{type(value).__name__}, not a dict',
                'It is not a checkpoint of MMEngine: get it from its author '
                'again.',
            )
    meta = checkpoint.get('meta') or {}
    for key, value in (meta.get('dataset_meta') or {}).items():
        is_names = isinstance(value, list | tuple | str) and all(
            isinstance(one, str) for one in value
        )
        if str(key).lower() == 'classes' and value and not is_names:
            raise UserError(
                f'checkpoint {name}: meta.dataset_meta.{key} is '
                f'{short(value)}, not a list of names',
                'Get the checkpoint from its author again.',
            )
    hub = checkpoint.get('message_hub') or {}
    for holder in (meta, hub.get('runtime_info') or {}):
        holder.pop('config', None)
        holder.pop('cfg', None)
    return checkpoint


def require_sha256(path: str | Path, digest: str) -> str:
    """Returns the SHA-256 of a file, which must begin with ``digest``."""
    digest = digest.lower()
    if not re.fullmatch('[0-9a-f]{8,64}', digest):
        raise UserError(
            f'SHA-256 {digest!r} is not 8 to 64 hexadecimal digits',
            f'sha256sum {path} prints it.',
        )
    found = sha256(_existing(path))
    if not found.startswith(digest):
        raise UserError(
            f'{path} has the SHA-256 {found}, and {digest} was expected',
            'It is another file or was changed: download it again.',
        )
    return found


def _existing(filename: str | Path) -> Path:
    path = Path(filename).expanduser()
    if path.is_file():
        return path
    if '://' in str(filename):
        from mmengine.runner.checkpoint import CheckpointLoader

        schemes = [s for s in CheckpointLoader._schemes if s.endswith('://')]
        raise UserError(
            f'checkpoint {filename}: unknown scheme',
            did_you_mean(str(filename).split('://')[0] + '://', schemes)
            or f'Known: {", ".join(schemes)}.',
        )
    folder = path if path.is_dir() else path.parent
    beside = [
        p.name
        for kind in ('*.pth', '*.safetensors')
        for p in (folder.glob(kind) if folder.is_dir() else ())
    ]
    raise UserError(
        f'checkpoint {path} '
        + ('is a folder' if path.is_dir() else 'does not exist'),
        did_you_mean(path.name, beside)
        or (f'{folder} has {", ".join(sorted(beside)[:5])}.' if beside else '')
        or f'{folder} holds no .pth file; check the path.',
    )


def _load_safetensors(path: Path, map_location: MapLocation) -> dict:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, str) else 'cpu'
    try:
        with safe_open(path, 'pt') as file:
            meta = json.loads((file.metadata() or {}).get('mmext', '{}'))
        checkpoint = {'meta': meta, 'state_dict': load_file(path, device)}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return without_config(checkpoint, str(path))


def _unreadable(path: Path, error: Exception | str) -> UserError:
    # torch explains weights_only at length before the actual message.
    text = str(error).split('WeightsUnpickler error:')[-1]
    first = text.strip().splitlines() or [type(error).__name__]
    with path.open('rb') as file:
        begin = file.read(20)
    if not begin:
        first = ['it is empty']
    elif begin.isascii() and begin.decode().isprintable():
        first = [f'it is a text file that begins with {begin.decode()!r}']
    elif begin.startswith(b'PK') and 'not a zip file' in first[0]:
        first = ['its end is missing']
    return UserError(
        f'checkpoint {path} ({path.stat().st_size} bytes) is not a complete '
        f'checkpoint: {first[0][:200]}',
        'It was truncated or changed. Use an older one; --resume without a '
        'file name finds the newest complete checkpoint.',
    )
