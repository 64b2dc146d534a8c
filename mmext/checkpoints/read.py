# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads checkpoints without running the code in them.

Importing this module makes MMEngine read every checkpoint with
``weights_only``: local files, URLs and ``torchvision://`` names. The
maintained builds would otherwise unpickle anything; the official ones would
refuse the checkpoints that they wrote themselves.

A ``.pth`` file is a pickle in a zip file. Reading it could run code, fill the
memory, or load another file than expected. A pickle that needs more than
tensors and plain containers is refused, except inside :func:`trusting`
(``--trust-checkpoint``) or with ``MMEXT_TRUST_CHECKPOINT=1``. A file whose
name ends in ``-<8 or more digits of its SHA-256>`` must have that hash.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import checkpoint as host
from mmengine.runner.checkpoint import CheckpointLoader

from mmext.errors import UserError, did_you_mean
from mmext.utils.files import sha256

MapLocation = str | torch.device | Callable | None
#: The environment variable with which a user trusts every checkpoint.
TRUST = 'MMEXT_TRUST_CHECKPOINT'
_trusting = ContextVar('trusting', default=False)
#: As torch.hub names files; a date (-20261231.pth) is not a hash.
NAMED_HASH = re.compile(
    r'-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.\w+$'
)

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


class UntrustedCheckpointError(UserError):
    """The file is complete, but reading it would call unknown code."""


def load(filename: str | Path, map_location: MapLocation = 'cpu') -> dict:
    """Reads a checkpoint without running the code in it.

    ``filename`` is a ``.pth`` file written by ``torch.save``, a
    ``.safetensors`` file, or a URL of a scheme that MMEngine knows. Returns
    the content; of ``.safetensors``, ``meta`` and ``state_dict``. Raises
    `UserError` if the file does not exist, is not a complete checkpoint, does
    not have the hash in its name, or would call something that is not on the
    allowlist.
    """
    return CheckpointLoader.load_checkpoint(
        str(filename), map_location, logger='silent'
    )


def load_from_local(
    filename: str | Path, map_location: MapLocation = None
) -> dict:
    """:func:`load` for files, as MMEngine calls it."""
    map_location = map_location or 'cpu'
    path = _existing(filename)
    if not trusted():
        require_named_hash(path)
    if path.suffix == '.safetensors':
        return _load_safetensors(path, map_location)
    if trusted():
        return torch.load(path, map_location, weights_only=False)
    refuse_bomb(path)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = globals_wanted(path, str(error))
        if not wanted:
            raise _unreadable(path, error) from error
        raise UntrustedCheckpointError(
            f'checkpoint {path} was refused: loading it would call '
            f'{", ".join(wanted)}, which can run any code (SHA-256 '
            f'{sha256(path)})',
            'Ask its author for only the weights (a plain state_dict or '
            '.safetensors). If you trust the author of this file: '
            f'--trust-checkpoint, or {TRUST}=1.',
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
    # Runner.resume() would execute this text as a Python config.
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
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
        return {'meta': meta, 'state_dict': load_file(path, device)}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    # torch explains weights_only at length before the actual message.
    text = str(error).split('WeightsUnpickler error:')[-1]
    first = text.strip().splitlines() or [type(error).__name__]
    with path.open('rb') as file:
        begin = file.read(20)
    if not begin:
        first = ['it is empty']
    elif begin.isascii() and begin.decode().isprintable():
        first = [f'it is a text file that begins with {begin.decode()!r}']
    return UserError(
        f'checkpoint {path} ({path.stat().st_size} bytes) is not a complete '
        f'checkpoint: {first[0][:200]}',
        'It was truncated or changed. Use an older one; --resume without a '
        'file name finds the newest complete checkpoint.',
    )


def load_from_http(
    filename: str,
    map_location: MapLocation = None,
    model_dir: str | None = None,
    progress: bool = True,
) -> dict:
    """Downloads to torch's cache, once for each machine, then reads."""
    folder = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'))
    path = folder / Path(urlparse(filename).path).name
    if int(os.environ.get('LOCAL_RANK', 0)) == 0 and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = torch.hub.HASH_REGEX.search(path.name)
        try:
            torch.hub.download_url_to_file(
                filename, str(path), found and found.group(1), progress
            )
        except (OSError, RuntimeError) as error:
            raise UserError(
                f'could not download {filename}: {error}',
                f'Put the file at {path}, or name a local file.',
            ) from error
    barrier()
    return load_from_local(path, map_location)


def _install() -> None:
    """Makes MMEngine read checkpoints through this module."""
    register = CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(('http://', 'https://'), load_from_http, force=True)
    # torchvision://, open-mmlab:// and mmcls:// look the URL up and call it.
    host.load_from_http = load_from_http


_install()
