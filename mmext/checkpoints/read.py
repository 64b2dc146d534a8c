# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads checkpoints without running the code in them.

Importing this module makes MMEngine read every checkpoint with
``weights_only``: local files, URLs and ``torchvision://`` names. The
maintained builds would otherwise unpickle anything; the official ones would
refuse the checkpoints that they wrote themselves.

A ``.pth`` file is a pickle in a zip file. Reading it could run code, fill the
memory, or load another file than expected. A pickle that needs more than
tensors and plain containers is refused, unless the user has named the SHA-256
of the file: inside :func:`trusting` (``--trust-checkpoint``) or in
``MMEXT_TRUST_CHECKPOINT``. A file whose name ends in ``-<8 or more digits of
its SHA-256>`` must have that hash.

MMEngine's checkpoints also hold the text of their config, which MMEngine
would execute. It is removed from a file that is not trusted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import checkpoint as host
from mmengine.runner.checkpoint import CheckpointLoader

from mmext.checkpoints.tensors import require_checksums, require_sizes
from mmext.errors import UserError, did_you_mean
from mmext.utils.files import sha256
from mmext.utils.text import short

MapLocation = str | torch.device | Callable | None
#: The environment variable with the SHA-256 of trusted checkpoints.
TRUST = 'MMEXT_TRUST_CHECKPOINT'
_trusted: ContextVar[frozenset[str]] = ContextVar(
    'trusted', default=frozenset()
)
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
    return _without_config(checkpoint, str(path))


#: The containers of a checkpoint: where they are, and what they must be.
_DICTS = (
    ('state_dict',),
    ('meta',),
    ('meta', 'dataset_meta'),
    ('message_hub',),
    ('message_hub', 'runtime_info'),
)


def _without_config(checkpoint: dict, name: str) -> dict:
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
    return _without_config(checkpoint, str(path))


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


def load_from_hub(filename: str, map_location: MapLocation = None) -> dict:
    """Reads ``hf-hub:OWNER/NAME`` from the cache, or downloads it first."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
    )

    repo, _, revision = filename.removeprefix('hf-hub:').partition('@')
    name = 'model.safetensors'
    try:
        path = hf_hub_download(repo, name, revision=revision or None)
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f'could not download {filename}: {str(error).splitlines()[0]}',
            f'Download {hf_hub_url(repo, name)} elsewhere, and name the file '
            f"instead: init_cfg=dict(type='Pretrained', checkpoint={name!r}).",
        ) from error
    return load_from_local(path, map_location)


def load_from_any(
    file: str | Path | IO[bytes],
    map_location: MapLocation = None,
    weights_only: bool | None = None,
) -> dict:
    """:func:`load` for files and streams, as MMEngine's other loaders call it.

    ``weights_only`` changes nothing: only :func:`trusting` does.
    """
    if isinstance(file, str | Path):
        return load_from_local(file, map_location)
    with tempfile.NamedTemporaryFile(suffix='.pth') as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        return load_from_local(copy.name, map_location)


def _install() -> None:
    """Makes MMEngine read checkpoints through this module."""
    register = CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(('http://', 'https://'), load_from_http, force=True)
    register('hf-hub:', load_from_hub, force=True)
    # torchvision://, open-mmlab:// and mmcls:// look the URL up and call it.
    host.load_from_http = load_from_http
    # The others (s3://, openmmlab://, pavi://) call this one, which unpickles
    # what weights_only refuses. OpenMMLab's builds call torch.load instead.
    host._safe_torch_load = load_from_any
    for prefix, loader in [*CheckpointLoader._schemes.items()]:
        if loader.__module__ == host.__name__:
            register(prefix, _removing_config(loader), force=True)


def _removing_config(loader: Callable) -> Callable:
    @functools.wraps(loader)
    def load(filename: str, map_location: MapLocation = None) -> dict:
        try:
            # OpenMMLab's builds call torch.load.
            with torch.serialization.safe_globals(SAFE_GLOBALS):
                found = loader(filename, map_location)
        except pickle.UnpicklingError as error:
            wanted = re.findall(r'\bGLOBAL ([\w.]+\.[\w.]+)', str(error))
            raise UserError(
                f'checkpoint {filename} was refused: loading it would call '
                f'{", ".join(wanted) or "code"}',
                'Ask its author for only the weights, or download it and name '
                'the file.',
            ) from error
        return _without_config(found, filename)

    return load


_install()
