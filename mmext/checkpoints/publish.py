# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes the weights of a training's checkpoint as a file for others.

The file has class names, palette, epoch, and the SHA-256 of the checkpoint
beside the weights, or their average (EMA) if the run kept one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from mmext.checkpoints.load import load
from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.trust import trusting
from mmext.errors import UserError
from mmext.utils import files
from mmext.utils.text import short
from mmext.version import __version__

FORMATS = ('safetensors', 'pth')


@dataclass(frozen=True)
class Published:
    """What :func:`publish` wrote.

    Attributes:
        path: The file, named ``<stem>-<first 8 digits of its SHA-256>``.
        digest: Its SHA-256.
        tensors: The number of tensors in it.
        averaged: Whether they are the run's average (EMA).
        dropped: Parts of the checkpoint that were left out.
    """

    path: Path
    digest: str
    tensors: int
    averaged: bool
    dropped: list[str]


def publish(
    checkpoint: str | Path,
    target: str | Path,
    *,
    file_format: str = 'safetensors',
    sha256: str | None = None,
    trust_checkpoint: str | Sequence[str] = (),
) -> Published:
    """Writes the weights of a checkpoint completely or not at all.

    Args:
        checkpoint: A checkpoint of a training; it is not changed.
        target: Folder and stem of the file to write: ``out/faster-rcnn_r50``.
        file_format: ``safetensors`` or ``pth``. Default: ``safetensors``.
        sha256: The first digits, 8 or more, of the SHA-256 that the
            checkpoint must have. Default: not checked.
        trust_checkpoint: SHA-256 of checkpoints that may run any code.
            Default: none.

    Raises:
        UserError: If the checkpoint is not complete, not trusted, has
            another hash or no weights, or if the file cannot be written.
    """
    if file_format not in FORMATS:
        raise UserError(
            f'format {file_format!r} is unknown', f'Use one of {FORMATS}.'
        )
    source_sha256 = None
    if sha256 is not None:
        source_sha256 = require_sha256(checkpoint, sha256)
    with trusting(trust_checkpoint):
        content = load(checkpoint)
    weights, dropped = _weights(content, checkpoint)
    if source_sha256 is None:
        source_sha256 = files.sha256(Path(checkpoint).expanduser())
    meta = _meta(content.get('meta'), source_sha256)
    target = Path(target).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix='.publishing-', dir=target.parent
        ) as folder:
            written = Path(folder, f'weights.{file_format}')
            _write(written, weights, meta)
            digest = files.sha256(written)
            final = target.with_name(
                f'{target.name}-{digest[:8]}.{file_format}'
            )
            with open(written, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(written, final)
    except OSError as error:
        raise UserError(
            f'{target} could not be written: {error}',
            'Name a folder that you may write to, with enough space.',
        ) from error
    # EMAHook saves the average as state_dict, and the raw weights as this.
    averaged = 'ema_state_dict' in content
    return Published(final, digest, len(weights), averaged, dropped)


def _weights(
    checkpoint: Mapping, source: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors to publish, and the names of everything else."""
    wrapped = 'state_dict' in checkpoint
    state = (checkpoint['state_dict'] if wrapped else checkpoint) or {}
    weights = {
        str(key).removeprefix('module.'): value.detach().clone().contiguous()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    if not weights:
        raise UserError(
            f'checkpoint {source} holds no weights: its keys are '
            f'{", ".join(map(str, checkpoint)) or "none"}',
            'Name a checkpoint that mmext train wrote, or a state_dict.',
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
    """Writes a file; raises OSError if it does not hold what was written."""
    if path.suffix == '.safetensors':
        # One entry: safetensors writes several in any order. With its
        # save_file, other users could not read the file.
        try:
            content = save(weights, {'mmext': json.dumps(meta)})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'safetensors cannot hold these weights: {short(error)}',
                'Use --format pth.',
            ) from error
        path.write_bytes(content)
    else:
        torch.save({'meta': meta, 'state_dict': weights}, path)
    found = load(path)['state_dict']
    if found.keys() != weights.keys() or not all(
        torch.equal(found[key], value) for key, value in weights.items()
    ):
        raise OSError('what was read back is not what was written')
