# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A small ONNX file with the inputs and outputs of exported detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmext.export.formats import KEY
from mmext.export.metadata import Metadata
from mmext.export.preparation import Preparation

META = Metadata(('a', 'b'), Preparation((64, 64), True, None, 0), multiple=2)


def onnx_file(
    path: Path, meta: str | None = META.json(), **change: Any
) -> Path:
    """Writes a model that finds one box, and nothing in a second row."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    from onnx import helper, numpy_helper

    def constant(name: str, value: list, kind: type) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.array(value, kind), name)
        return helper.make_node('Constant', [], [name], value=tensor)

    nodes = [
        constant('boxes', [[[1, 2, 3, 4], [0, 0, 0, 0]]], np.float32),
        constant('scores', [[0.5, -1]], np.float32),
        constant('labels', [[1, 0]], np.int64),
    ]
    nodes += change.get('nodes', [])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        'graph',
        [
            info(
                change.get('input', 'image'),
                onnx.TensorProto.UINT8,
                [None, 3, None, None],
            )
        ],
        [
            info('boxes', onnx.TensorProto.FLOAT, [1, 2, 4]),
            info('scores', onnx.TensorProto.FLOAT, [1, 2]),
            info('labels', onnx.TensorProto.INT64, [1, 2]),
        ],
        change.get('initializer', []),
    )
    opsets = [helper.make_opsetid('', 18), *change.get('opsets', [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if meta is not None:
        helper.set_model_props(model, {KEY: meta})
    path.write_bytes(model.SerializeToString())
    return path
