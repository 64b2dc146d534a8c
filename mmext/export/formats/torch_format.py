# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Programs of ``torch.export``, which can run code when they are read.

One must be trusted, as a checkpoint must that holds code.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

import mmext.export.tracing.nms  # noqa: F401  # registers the operator
from mmext.checkpoints.trust import is_trusted
from mmext.errors import UserError
from mmext.export.formats import KEY, Network
from mmext.export.metadata import Metadata
from mmext.utils.files import sha256
from mmext.utils.text import short


def write(program: ExportedProgram, meta: Metadata, path: Path) -> None:
    """Writes a program with its metadata."""
    torch.export.save(program, path, extra_files={KEY: meta.json()})


def open_file(path: Path) -> tuple[Network, str | None]:
    """Returns how to run a file, and its metadata."""
    if not is_trusted(path):
        raise UserError(
            f'{path} was refused: reading a program of torch.export can run '
            'any code',
            'If you trust its author: --trust-checkpoint '
            f"{sha256(path)} (in Python trust_checkpoint='...'). ONNX files "
            'need no trust.',
        )
    extra = {KEY: ''}
    try:
        data = io.BytesIO(path.read_bytes())
        program = torch.export.load(data, extra_files=extra)
    except Exception as error:  # its type depends on what is missing
        raise UserError(
            f'{path} is not a complete program of torch.export: '
            f'{short(str(error), 120)}',
            'Copy or export it again.',
        ) from error
    module = program.module()

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(images))
        return [part.numpy() for part in found]

    return run, extra[KEY]
