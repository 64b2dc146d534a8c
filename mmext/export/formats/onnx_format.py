# Licensed under the Apache License, Version 2.0. See LICENSE.
"""ONNX files: data, which is refused if it asks for anything else."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmext.errors import UserError
from mmext.export.formats import KEY, NAMES, Network, required
from mmext.export.metadata import Metadata
from mmext.utils.machine import cores
from mmext.utils.text import short, some

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OLDEST_OPSET = 18  # that torch.onnx writes


def require(opset: int) -> None:
    """Raises ``UserError`` if files of an opset cannot be written."""
    onnx, _, _ = map(required, ('onnx', 'onnxscript', 'onnxruntime'))
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(
            f'opset {opset} cannot be written',
            f'Give one from {OLDEST_OPSET} to {newest}.',
        )


def write(
    program: ExportedProgram, meta: Metadata, path: Path, opset: int
) -> None:
    """Writes a program with its metadata."""
    import torch

    from mmext.export.tracing.nms import nms_keep_in_onnx
    from mmext.export.tracing.trace import explained

    operator = torch.ops.mmext.nms_keep.default
    # It reports every step on the standard output.
    with (
        explained('torch.onnx', meta.size is not None),
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


def open_file(path: Path) -> tuple[Network, str | None]:
    """Returns how to run a file, and its metadata."""
    onnx, runtime = required('onnx'), required('onnxruntime')
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of a type that onnx does not export
        raise UserError(
            f'{path} is not a complete ONNX model: {short(str(error), 120)}',
            'Copy or export it again.',
        ) from error
    _require_own(model, path)
    options = runtime.SessionOptions()
    # By default, it pins its threads to all cores of the machine.
    options.intra_op_num_threads = cores()
    try:
        session = runtime.InferenceSession(
            data, options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # of a type for each code of onnxruntime
        raise UserError(
            f'onnxruntime {runtime.__version__} cannot run {path}: '
            f'{short(str(error), 200)}',
            'Update onnxruntime, or export with --opset 18.',
        ) from error
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if inputs != ['image'] or outputs not in ([*NAMES[:3]], [*NAMES]):
        raise UserError(
            f'{path} is no detector: it makes {some(outputs)} from '
            f'{some(inputs) or "nothing"}',
            f'Use a file that mmext export wrote. It makes {some(NAMES)} from '
            'image.',
        )

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        return session.run(outputs, {'image': images})

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _require_own(model: Any, path: Path) -> None:
    """Raises ``UserError`` if a model needs what is not in it."""
    parts = [*_parts(model)]
    domains = {part.domain for part in parts if hasattr(part, 'op_type')}
    if others := sorted(domains - {'', 'ai.onnx'}):
        raise UserError(
            f'{path} was refused: it uses operators of {some(others)}, which '
            'are not part of ONNX',
            'Use a file that mmext export wrote.',
        )
    for part in parts:
        if places := getattr(part, 'external_data', ()):
            found = {entry.key: entry.value for entry in places}
            raise UserError(
                f'{path} was refused: the values of {short(part.name)} are '
                f'in another file, {short(found.get("location", ""))}',
                'Use a file that holds all its values, as mmext export '
                'writes.',
            )


def _parts(message: Any) -> Iterator[Any]:
    """Yields a message of protobuf and all that are inside of it."""
    yield message
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            is_one = hasattr(value, 'ListFields')
            for part in [value] if is_one else value:
                yield from _parts(part)
