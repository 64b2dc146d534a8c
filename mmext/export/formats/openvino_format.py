# Licensed under the Apache License, Version 2.0. See LICENSE.
"""OpenVINO's files: a graph in ``.xml``, and its weights beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.export.formats import KEY, Network, required
from mmext.utils.machine import cores
from mmext.utils.text import short


def require() -> None:
    """Raises ``UserError`` if OpenVINO is not installed."""
    required('openvino', 'openvino')


def write(source: Path, path: Path, fp16: bool = False) -> None:
    """Converts an ONNX file of mmext; weights may be stored in fp16."""
    from mmext.export.tracing.trace import explained

    openvino = required('openvino', 'openvino')
    with explained('OpenVINO', True):
        model = openvino.convert_model(source)
    for entry in required('onnx').load(source).metadata_props:
        if entry.key == KEY:
            model.set_rt_info(entry.value, KEY)
    openvino.save_model(model, path, compress_to_fp16=fp16)


def open_file(path: Path) -> tuple[Network, str | None]:
    """Returns how to run a file, and its metadata."""
    openvino = required('openvino', 'openvino')
    try:
        core = openvino.Core()
        model = core.read_model(path)
        # By default, it computes in bfloat16 where the processor can, and
        # keeps the number of cores that it saw first.
        options = {
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': cores(),
        }
        compiled = core.compile_model(model, 'CPU', options)
    except RuntimeError as error:
        raise UserError(
            f'OpenVINO cannot run {path}: {short(str(error), 200)}',
            f'Copy it again, with {path.stem}.bin, or export it again.',
        ) from error
    text = model.get_rt_info(KEY).value if model.has_rt_info(KEY) else None

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        # A request of its own: one cannot serve two threads.
        found = compiled.create_infer_request().infer([images])
        return [found[i] for i in range(len(compiled.outputs))]

    return run, text
