# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Smaller ONNX files: weights in fp16, or convolutions in int8.

Only convolutions and matrix products with weights change. What computes boxes
from them stays in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmext.export.formats import required

_LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_SMALLEST = 256  # values of a weight; others would save nothing


def to_fp16(source: Path, path: Path) -> None:
    """Stores weights in fp16; they are read as, and computed in, float32."""
    onnx = required('onnx')
    model = onnx.load(source)
    graph = model.graph
    weights = {value.name: value for value in graph.initializer}
    casts = []
    for name in sorted({name for _, name in _weights(graph)}):
        value = onnx.numpy_helper.to_array(weights[name])
        half = f'{name}_fp16'
        # The largest number of fp16 is 65504.
        limit = np.finfo(np.float16).max
        value = value.clip(-limit, limit).astype(np.float16)
        graph.initializer.remove(weights[name])
        graph.initializer.append(onnx.numpy_helper.from_array(value, half))
        casts.append(
            onnx.helper.make_node(
                'Cast', [half], [name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def to_int8(source: Path, path: Path, images: Iterable[np.ndarray]) -> None:
    """Quantises weights by channel, and maps by the range that images need.

    Args:
        source: A float32 file.
        path: The file to write.
        images: (H, W, 3), uint8, prepared images of the training set.
    """
    onnx = required('onnx')
    quantization = required('onnxruntime.quantization')
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Of a channel whose weights are all 0, the range is divided by 0.
    zeros = np.errstate(invalid='ignore')
    with tempfile.TemporaryDirectory() as folder, zeros:
        folded = Path(folder, 'folded.onnx')
        # It folds norms into convolutions.
        quant_pre_process(source, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            path,
            _reader(quantization.CalibrationDataReader, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Without VNNI, sums of products of 8 bits overflow.
            reduce_range=True,
            nodes_to_quantize=[
                node.name for node, _ in _weights(onnx.load(folded).graph)
            ],
        )
    # onnxruntime writes metadata of its own, and domains that are not used.
    model, original = onnx.load(path), onnx.load(source)
    for name in ('metadata_props', 'opset_import'):
        model.ClearField(name)
        getattr(model, name).extend(getattr(original, name))
    onnx.save(model, path)


def _weights(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yields layers and the names of their weights."""
    large = {
        value.name
        for value in graph.initializer
        if len(value.dims) > 1 and np.prod(value.dims) >= _SMALLEST
    }
    for node in graph.node:
        if node.op_type in _LAYERS:
            yield from ((node, name) for name in node.input if name in large)


def _reader(base: type, images: Iterable[np.ndarray]) -> Any:
    """Returns images in the way that onnxruntime asks for them."""
    waiting = iter(images)

    class Reader(base):
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(waiting, None)
            if image is None:
                return None
            return {'image': image.transpose(2, 0, 1)[None]}

    return Reader()
