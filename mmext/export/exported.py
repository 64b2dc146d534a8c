# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Opens and runs exported files.

An ONNX file is data, and is refused if it asks for other operators or other
files. A program of ``torch.export`` can run code when it is read, so that it
must be trusted, as a checkpoint must that holds code.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmext.errors import UserError
from mmext.export.detections import Detections
from mmext.export.masks import full_masks
from mmext.export.metadata import KEY, Metadata, parse
from mmext.export.preparation import Prepared
from mmext.utils.documents import require_regular
from mmext.utils.text import short, some

#: Suffix -> value of ``--format``.
FORMATS = {'.onnx': 'onnx', '.pt2': 'torch'}

#: The outputs of a file; only some detectors have masks.
NAMES = ('boxes', 'scores', 'labels', 'masks')
#: From images (B, 3, H, W) to boxes, scores, labels and maybe masks.
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class ExportedFile:
    """A detector in a file that ``mmext export`` wrote.

    Several threads may call it at once.

    Args:
        path: The file, ``.onnx`` or ``.pt2``.

    Raises:
        UserError: It is not such a file, or not trusted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            require_regular(self.path)
            raise UserError(f'model {path} does not exist', 'Check the path.')
        open_file = _open_onnx if self.path.suffix == '.onnx' else _open_torch
        self._run, text = open_file(self.path)
        self.meta: Metadata = parse(text, path)

    def __call__(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detects in prepared images of one size.

        Raises:
            UserError: The file does not take images of this size.
        """
        pixels = np.stack([image.pixels for image in images])
        height, width = pixels.shape[1:3]
        size, multiple = self.meta.size, self.meta.multiple
        if size is not None and (height, width) != size:
            raise UserError(
                f'{self.path} takes images of {size[1]}x{size[0]} pixels, and '
                f'this one has {width}x{height} after resizing',
                'Export without --size for images of any size.',
            )
        if height % multiple or width % multiple:
            raise UserError(
                f'{self.path} takes images whose sides are multiples of '
                f'{multiple}, and this one has {width}x{height} pixels after '
                'resizing',
                'Pad it on the right and at the bottom.',
            )
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        try:
            outputs = self._run(pixels)
        except Exception as error:  # of types of two packages
            raise UserError(
                f'{self.path} fails for {len(pixels)} images of '
                f'{width}x{height} pixels: {short(str(error), 200)}',
                'Export with --size for images of one size, or with '
                '--format torch.',
            ) from error
        return [
            self._detections(image, *rows)
            for image, *rows in zip(images, *outputs, strict=True)
        ]

    def _detections(
        self,
        image: Prepared,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
    ) -> Detections:
        found = scores >= 0
        boxes = boxes[found] / np.tile(np.float32(image.scale), 2)
        if masks is not None:
            how = self.meta.masks
            masks = full_masks(masks[found], boxes, how, image)
        return Detections(boxes, scores[found], labels[found], masks)


def required(name: str) -> ModuleType:
    """Imports a package of the extra ``export``."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f'ONNX files need the package {name}, which is not installed',
            "pip install 'mmext[export]' installs it.",
        ) from error


def _open_onnx(path: Path) -> tuple[Run, str | None]:
    onnx, runtime = required('onnx'), required('onnxruntime')
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of a type that onnx does not export
        raise UserError(
            f'{path} is not a complete ONNX model: {short(str(error), 120)}',
            'Copy or export it again.',
        ) from error
    require_own(model, path)
    try:
        session = runtime.InferenceSession(
            data, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # of a type for each code of onnxruntime
        raise UserError(
            f'onnxruntime {runtime.__version__} cannot run {path}: '
            f'{short(str(error), 200)}',
            'Update onnxruntime, or export with --opset 18.',
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
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

    return run, text


def require_own(model: Any, path: Path) -> None:
    """Raises ``UserError`` if an ONNX model needs what is not in it."""
    domains = {opset.domain for opset in model.opset_import}
    domains |= {node.domain for node in _nodes(model)}
    if others := sorted(domains - {'', 'ai.onnx'}):
        raise UserError(
            f'{path} was refused: it uses operators of {some(others)}, which '
            'are not part of ONNX',
            'Use a file that mmext export wrote.',
        )
    for tensor in _tensors(model):
        if tensor.external_data:
            places = {entry.key: entry.value for entry in tensor.external_data}
            raise UserError(
                f'{path} was refused: the values of {short(tensor.name)} are '
                f'in another file, {short(places.get("location", ""))}',
                'Use a file that holds all its values, as mmext export '
                'writes.',
            )


def _graphs(model: Any) -> Iterator[Any]:
    """Yields the graph, functions, and the graphs inside of their nodes."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField('g') else []
                waiting += attribute.graphs


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, 'initializer', ())
        for sparse in getattr(graph, 'sparse_initializer', ()):
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
            yield from (attribute.t, *attribute.tensors)
            for part in sparse:
                yield from (part.values, part.indices)


def _open_torch(path: Path) -> tuple[Run, str | None]:
    import torch

    import mmext.export.nms  # noqa: F401  # registers the operator
    from mmext.checkpoints.read import is_trusted
    from mmext.utils.files import sha256

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
