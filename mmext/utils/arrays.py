# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Files of integer arrays with a description: ``.npz``, checked when read.

The member ``description`` holds JSON in UTF-8, as an array of bytes; NumPy
reads the file without mmext. Its ``checksum`` is the SHA-256 of the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmext.errors import UserError
from mmext.utils.documents import parse_json, require_regular
from mmext.utils.files import replacing
from mmext.utils.text import short

#: Bytes that the arrays of a file may take in memory.
LARGEST = 1 << 30

Arrays = dict[str, np.ndarray]


def write_arrays(
    path: str | Path,
    kind: str,
    version: int,
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes arrays of integers and what they are, completely or not at all.

    Each array is stored in the smallest type that has its values.

    Args:
        path: The file.
        kind: What the file is; see `read_arrays`.
        version: Of its format.
        description: Texts, numbers and containers of them.
        arrays: Name -> integers.
    """
    small = {name: _smallest(values) for name, values in arrays.items()}
    content = {'format': kind, 'version': version, **description}
    content = json.loads(json.dumps(content))  # keys become texts
    content['checksum'] = _checksum(content, small)
    text = json.dumps(content).encode()
    small['description'] = np.frombuffer(text, np.uint8)
    with replacing(path) as part, part.open('wb') as stream:
        np.savez_compressed(stream, **small)


def read_arrays(
    path: str | Path, kind: str, version: int, fix: str
) -> tuple[dict[str, Any], Arrays]:
    """Reads the description and the arrays of a file.

    Nothing in it is executed or unpickled.

    Args:
        path: The file.
        kind: The ``format`` that it must have.
        version: The version that it must have.
        fix: What to do about a file that cannot be used.

    Raises:
        UserError: The file is of another kind or version, is truncated or
            damaged, was changed, or takes more than ``LARGEST`` bytes.
    """
    require_regular(path)
    what = kind.removeprefix('mmext-').replace('-', ' ')
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > LARGEST:
                raise UserError(
                    f'{path} was refused: it would take {size} bytes of '
                    f'memory, and at most {LARGEST} are read',
                    fix,
                )
            members = {n: archive.read(n) for n in archive.namelist()}
        arrays = {
            name.removesuffix('.npy'): _parse(data)
            for name, data in members.items()
        }
        text = arrays.pop('description', np.empty(0, np.uint8)).tobytes()
    # What zipfile raises depends on which byte is wrong.
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,  # encrypted, or a method of packing it does not know
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _unreadable(path, what, fix, error) from error
    content = parse_json(text, path) if text else None
    if not isinstance(content, dict) or content.get('format') != kind:
        raise UserError(f'{path} is no {what}', fix)
    if content.get('version') != version:
        raise UserError(
            f'{path} is a {what} of version '
            f'{short(content.get("version"))}; this mmext reads version '
            f'{version}',
            'Read it with the mmext that wrote it, or update mmext.',
        )
    saved = content.pop('checksum', None)
    try:
        found = _checksum(content, arrays)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{path}: a number of its description is NaN or infinite, or it '
            'is nested too deeply',
            fix,
        ) from error
    if saved != found:
        raise UserError(
            f'{path} was changed after it was written: its checksum is wrong',
            fix,
        )
    return content, arrays


def _unreadable(
    path: str | Path, what: str, fix: str, error: Exception
) -> UserError:
    if isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror
        return UserError(
            f'{what} {path} cannot be read: {reason}', 'Check the path.'
        )
    with open(path, 'rb') as stream:
        is_archive = stream.read(4) == b'PK\3\4'
    if not is_archive:
        return UserError(f'{path} is no {what}', fix)
    return UserError(
        f'{path} is truncated or damaged, or no {what} ({error})', fix
    )


def _parse(data: bytes) -> np.ndarray:
    """Reads an array as ``np.load`` does, but never more than there is."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError('an array is of another version of NumPy')
    shape, columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in 'iu' or columns:
        raise ValueError(f'an array has {dtype} and not integers in rows')
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


def _smallest(values: np.ndarray) -> np.ndarray:
    least, most = (int(f(initial=0)) for f in (values.min, values.max))
    kind = np.result_type(*map(np.min_scalar_type, (least, most)))
    return np.ascontiguousarray(values, kind)


def _checksum(description: Mapping[str, Any], arrays: Arrays) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode())
    for name, values in sorted(arrays.items()):
        digest.update(f'{name} {values.dtype.str} {values.shape}'.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
