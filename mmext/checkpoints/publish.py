# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A training's checkpoint as a file for others: weights, and nothing else.

What is left out: optimiser, schedules, log, config text, paths, and the raw
weights where the run kept an average (EMA). What stays beside the weights
says what they are: class names, palette, epoch, and the SHA-256 of the
checkpoint they were taken from.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from mmext.checkpoints.read import load
from mmext.errors import UserError
from mmext.utils.files import sha256
from mmext.version import __version__

FORMATS = ('safetensors', 'pth')


@dataclass(frozen=True)
class Published:
    """What was written.

    Args:
        path: The file, named ``<stem>-<first 8 digits of its SHA-256>``.
        digest: Its SHA-256.
        tensors: How many it holds.
        averaged: Whether they are the run's average (EMA).
        dropped: Parts of the checkpoint that were left out.
    """

    path: Path
    digest: str
    tensors: int
    averaged: bool
    dropped: list[str]


def publish(
    source: str | Path, target: str | Path, file_format: str = 'safetensors'
) -> Published:
    """Writes the weights of a checkpoint, whole or not at all.

    Args:
        source: A checkpoint of a training; it is not changed.
        target: Folder and stem of the file to write: ``out/faster-rcnn_r50``.
        file_format: ``safetensors`` or ``pth``. Default: ``safetensors``.

    Raises:
        UserError: The checkpoint is not whole, not trusted or without
            weights, or the file cannot be written.
    """
    if file_format not in FORMATS:
        raise UserError(
            f'format {file_format!r} is unknown', f'Use one of {FORMATS}.'
        )
    checkpoint = load(source)
    weights, dropped = _weights(checkpoint, source)
    meta = _meta(checkpoint.get('meta'), sha256(Path(source).expanduser()))
    target = Path(target).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix='.publishing-', dir=target.parent
        ) as folder:
            written = Path(folder, f'weights.{file_format}')
            _write(written, weights, meta)
            _read_back(written, weights)
            digest = sha256(written)
            final = target.with_name(
                f'{target.name}-{digest[:8]}.{file_format}'
            )
            with open(written, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(written, final)
    except OSError as error:
        raise UserError(
            f'{target} could not be written: {error}',
            'Name a folder with room that you may write to.',
        ) from error
    averaged = 'ema_state_dict' in checkpoint
    return Published(final, digest, len(weights), averaged, dropped)


def _weights(
    checkpoint: Mapping, source: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors to publish, and what else there was.

    MMEngine's EMAHook puts the average into ``state_dict`` and the raw
    weights into ``ema_state_dict`` when it saves.
    """
    wrapped = 'state_dict' in checkpoint
    state = checkpoint['state_dict'] if wrapped else checkpoint
    weights = {
        key.removeprefix('module.'): value.detach().clone().contiguous()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    if not weights:
        raise UserError(
            f'checkpoint {source} holds no weights: its keys are '
            f'{", ".join(map(str, checkpoint)) or "none"}',
            'Name a checkpoint that tools/train.py wrote, or a state_dict.',
        )
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f'checkpoint {source}: {key} holds '
                f'{int((~value.isfinite()).sum())} values of '
                f'{value.numel()} that are infinite or not numbers',
                'The training has diverged: publish an earlier checkpoint.',
            )
    dropped = [k for k in state if not isinstance(state[k], Tensor)]
    if wrapped:
        dropped += [k for k in checkpoint if k not in ('state_dict', 'meta')]
    return weights, dropped


def _meta(meta: Mapping | None, source_sha256: str) -> dict:
    meta = meta or {}
    kept = {
        key: meta[key]
        for key in ('epoch', 'iter', 'seed', 'mmengine_version')
        if isinstance(meta.get(key), int | str)
    }
    names = {
        str(k).lower(): v for k, v in (meta.get('dataset_meta') or {}).items()
    }
    kept['dataset_meta'] = {
        key: names[key] for key in ('classes', 'palette') if key in names
    }
    return {
        **kept,
        'mmext_version': __version__,
        'source_sha256': source_sha256,
    }


def _write(path: Path, weights: dict[str, Tensor], meta: dict) -> None:
    if path.suffix == '.safetensors':
        # One entry: safetensors writes several in any order. Its save_file
        # would let nobody else read the file.
        path.write_bytes(save(weights, {'mmext': json.dumps(meta)}))
    else:
        torch.save({'meta': meta, 'state_dict': weights}, path)


def _read_back(path: Path, weights: dict[str, Tensor]) -> None:
    """Raises OSError where a file does not hold what was written."""
    found = load(path)['state_dict']
    if found.keys() != weights.keys() or not all(
        torch.equal(found[key], value) for key, value in weights.items()
    ):
        raise OSError('what was read back is not what was written')
