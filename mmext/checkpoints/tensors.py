# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checksums and values of the tensors in a checkpoint.

``torch.save`` stores a CRC-32 of each member of the file, which
:func:`mmext.checkpoints.files.defect` compares. It does not notice a file
that was read, changed and saved again; the checksums here, which the runner
stores in ``meta``, do.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mmext.errors import UserError

#: The entry of ``meta`` that holds the checksum of each part.
KEY = 'checksums'
#: The parts of a checkpoint that a resumed run computes with.
PARTS = ('state_dict', 'ema_state_dict', 'optimizer')
#: No training has larger values: in float32, their squares are infinite.
LARGEST = 1e19
#: How many times the size of its file the tensors of a checkpoint may have.
#: Tensors that share their values are stored once.
GROWTH = 10


def tensors(value: Any, name: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yields name and value of every tensor in containers, in their order."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors(inner, f'{name}.{key}' if name else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from tensors(inner, f'{name}.{i}')


def checksums(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Returns the CRC-32 of the tensors of each part, with their names."""
    return {
        part: _checksum(checkpoint[part])
        for part in PARTS
        if part in checkpoint
    }


def _plain(part: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a part that are arrays of real numbers."""
    for name, value in tensors(part):
        is_array = value.layout == torch.strided and not value.is_meta
        if is_array and not (value.is_complex() or value.is_quantized):
            yield name, value


def _checksum(part: Any) -> int:
    checksum = 0
    for name, value in _plain(part):
        head = f'{name} {value.dtype} {tuple(value.shape)}'
        checksum = zlib.crc32(head.encode(), checksum)
        content = value.detach().cpu().contiguous().reshape(-1)
        checksum = zlib.crc32(content.view(torch.uint8).numpy(), checksum)
    return checksum


def require_checksums(checkpoint: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if a part is not what the runner has saved."""
    meta = checkpoint.get('meta')
    saved = meta.get(KEY) if isinstance(meta, Mapping) else None
    if not isinstance(saved, Mapping):
        return  # another program has saved the file
    found = checksums(checkpoint)
    wrong = [part for part in saved if saved[part] != found.get(part)]
    if wrong:
        raise UserError(
            f'checkpoint {name} was changed after it was saved: the checksum '
            f'of {", ".join(map(str, wrong))} is wrong',
            'Use an older one. If you have changed it yourself, remove '
            f'meta.{KEY} from it.',
        )


def require_sizes(checkpoint: Any, name: str, size: int) -> None:
    """Raises `UserError` if a file of ``size`` bytes holds larger tensors.

    A tensor may repeat one stored value any number of times, and fills the
    memory when it is copied.
    """
    total = sum(v.numel() * v.element_size() for _, v in tensors(checkpoint))
    if total > GROWTH * size:
        raise UserError(
            f'checkpoint {name} was refused: it has {size} bytes, and its '
            f'tensors would need {total} bytes of memory',
            'Its author has to save the tensors with clone().',
        )


def require_usable(checkpoint: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if a training cannot continue with the values."""
    for part in PARTS:
        for key, value in _plain(checkpoint.get(part)):
            if not value.is_floating_point() or not value.numel():
                continue
            # Numbers of 8 bits have no such function.
            least, most = value.detach().float().aminmax()
            # A comparison with NaN is false.
            if not (least > -LARGEST and most < LARGEST):
                what = f'values from {least:g} to {most:g}'
                raise UserError(
                    f'checkpoint {name}: {part}.{key} holds '
                    f'{"NaN" if least.isnan() else what}, with which a '
                    'training cannot continue',
                    'Use an older one; --resume without a file name does.',
                )
