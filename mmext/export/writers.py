# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a program of ``torch.export`` as a file."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from mmext.errors import UserError
from mmext.export.exported import FORMATS, NAMES, required
from mmext.export.metadata import KEY, Metadata
from mmext.export.nms import nms_keep_in_onnx
from mmext.export.trace import explained

OLDEST_OPSET = 18  # that torch.onnx writes


def require_format(file_format: str, opset: int) -> str:
    """Returns the suffix of a format.

    Raises:
        UserError: There is no such format or opset, or a package is missing.
    """
    suffixes = {name: suffix for suffix, name in FORMATS.items()}
    if file_format not in suffixes:
        raise UserError(
            f'format {file_format!r} is unknown', f'Use one of {[*suffixes]}.'
        )
    if file_format == 'onnx':
        onnx, _, _ = map(required, ('onnx', 'onnxscript', 'onnxruntime'))
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= opset <= newest:
            raise UserError(
                f'opset {opset} cannot be written',
                f'Give one from {OLDEST_OPSET} to {newest}.',
            )
    return suffixes[file_format]


def write(
    program: ExportedProgram, meta: Metadata, path: Path, opset: int
) -> None:
    """Writes a program and its metadata, in the format of the suffix."""
    if path.suffix == '.pt2':
        torch.export.save(program, path, extra_files={KEY: meta.json()})
        return
    operator = torch.ops.mmext.nms_keep.default
    fixed = meta.size is not None
    # It reports every step on the standard output.
    with (
        explained('torch.onnx', fixed),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=['image'],
            output_names=NAMES[: 3 + (meta.masks is not None)],
            custom_translation_table={operator: nms_keep_in_onnx},
            verbose=False,
        )
    written.model.metadata_props[KEY] = meta.json()
    written.save(path, external_data=False)
