# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Smaller files: their weights, their ranges, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmext.export.quantize import to_fp16, to_int8

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
runtime = pytest.importorskip(
    'onnxruntime', reason='onnxruntime is not installed'
)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 20, 3), np.uint8)


@pytest.fixture
def source(tmp_path) -> Path:
    """Two convolutions, a product of two maps, and a box in pixels."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(1)
    first = rng.normal(0, 1e-3, (16, 3, 3, 3)).astype(np.float32)
    second = rng.normal(0, 0.2, (8, 16, 3, 3)).astype(np.float32)
    box = np.float32([[1000.123, 500.456]])
    values = {'first': first, 'second': second, 'box': box}
    graph = helper.make_graph(
        [
            helper.make_node('Cast', ['image'], ['x'], to=1),
            helper.make_node('Conv', ['x', 'first'], ['a'], 'conv1'),
            helper.make_node('Relu', ['a'], ['b'], 'relu'),
            helper.make_node('Conv', ['b', 'second'], ['c'], 'conv2'),
            helper.make_node('MatMul', ['c', 'c2'], ['d'], 'product'),
            helper.make_node('Transpose', ['c'], ['c2'], perm=[0, 1, 3, 2]),
            helper.make_node('Identity', ['box'], ['e']),
        ],
        'graph',
        [
            helper.make_tensor_value_info(
                'image', onnx.TensorProto.UINT8, ['b', 3, 'h', 'w']
            )
        ],
        [
            helper.make_tensor_value_info(name, 1, shape)
            for name, shape in (
                ('d', [None] * 4),
                ('c', [None] * 4),
                ('e', [1, 2]),
            )
        ],
        [numpy_helper.from_array(v, name) for name, v in values.items()],
    )
    nodes = list(graph.node)
    nodes[4], nodes[5] = nodes[5], nodes[4]
    del graph.node[:]
    graph.node.extend(nodes)
    opset = [helper.make_opsetid('', 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    helper.set_model_props(model, {'mmext': 'about'})
    path = tmp_path / 'model.onnx'
    onnx.save(model, path)
    return path


def run(path: Path) -> list[np.ndarray]:
    session = runtime.InferenceSession(path)
    return session.run(None, {'image': IMAGES.transpose(0, 3, 1, 2)})


def properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_fp16(source, tmp_path):
    path = tmp_path / 'half.onnx'
    to_fp16(source, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert properties(path) == {'mmext': 'about'}
    stored = {v.name: v.data_type for v in onnx.load(path).graph.initializer}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert stored == {
        'first_fp16': half,
        'second_fp16': half,
        'box': single,
    }
    for one, other in zip(run(source), run(path), strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, 5e-3, 2e-3 * one.std())
    np.testing.assert_array_equal(run(source)[2], run(path)[2])


def test_int8(source, tmp_path):
    path = tmp_path / 'int8.onnx'
    to_int8(source, path, IMAGES)
    assert properties(path) == {'mmext': 'about'}
    model = onnx.load(path)
    onnx.checker.check_model(model)
    weights = [v for v in model.graph.initializer if len(v.dims) == 4]
    assert {v.data_type for v in weights} == {onnx.TensorProto.INT8}
    expected, found = run(source), run(path)
    error = np.abs(expected[1] - found[1]).mean() / expected[1].std()
    assert 1e-4 < error < 0.03
    np.testing.assert_array_equal(expected[2], found[2])
