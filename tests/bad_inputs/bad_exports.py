# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad exports, and exported files that are damaged or of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bad_input import World, mistake
from onnx_files import META, onnx_file

bad = partial(mistake, 'Export')
IMAGE = np.zeros((50, 40, 3), np.uint8)


def needs_onnx() -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed')


def export(title: str, options: str, *quotes: str) -> None:
    """Registers options of tools/export.py."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        needs_onnx()
        checkpoint = world.checkpoint()
        world.tool('export', world.config, checkpoint, *options.split())


def detect(path: Path) -> None:
    """Runs an exported file, as a user does."""
    import mmext

    mmext.Detector(path)(IMAGE)


def damaged(title: str, *quotes: str) -> Callable:
    """Registers a change of a good ONNX file."""

    def register(change: Callable[[Path], object]) -> None:
        @bad(title, *quotes)
        def _(world: World) -> None:
            needs_onnx()
            path = onnx_file(Path('net.onnx'))
            change(path)
            detect(path)

    return register


@bad('ONNX is not installed')
def _(world: World) -> None:
    world.patch.setitem(__import__('sys').modules, 'onnx', None)
    world.tool('export', world.config, world.checkpoint())


export('an opset that does not exist', '--opset 9', 'Give one from 18')
export('a size of no pixels', '--size 0 640')
export('no image to compare an exported file on', '--check 0')
export('a file name of another format', '--out net.pt2')
export('a precision that a format does not have', '--precision bf16')
export(
    'int8 without training images',
    '--precision int8 --cfg-options train_dataloader=None',
)
export(
    'export of a segmentor',
    '--cfg-options default_scope=mmseg test_dataloader=None',
    'is not a detector',
)
export(
    'a detector that cannot be exported',
    '--cfg-options model.test_cfg.rcnn.nms.type=soft_nms',
)
export(
    'a test pipeline that cannot be exported',
    '--cfg-options test_dataloader.dataset.pipeline.1.type=ResizeShortestEdge',
)


@bad('a data set without annotations to compare AP on')
def _(world: World) -> None:
    needs_onnx()
    text = world.config.read_text()
    world.config.write_text(
        text + '\ntest_dataloader = dict(dataset=dict(_delete_=True, '
        "type='ShapesDataset'))\ntest_evaluator = dict(_delete_=True, "
        "type='ShapesMetric')\n"
    )
    world.tool('export', world.config, world.checkpoint())


@damaged('a truncated ONNX file', 'not a complete ONNX model')
def _(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@damaged('a web page saved as an ONNX file', 'not a complete ONNX model')
def _(path: Path) -> None:
    path.write_text('<html>404 not found</html>')


@damaged('an ONNX file that mmext did not write')
def _(path: Path) -> None:
    onnx_file(path, None)


@damaged('an ONNX file whose metadata are of others')
def _(path: Path) -> None:
    onnx_file(path, '{"names": ["cell"]}')


@damaged('an ONNX file with custom operators')
def _(path: Path) -> None:
    from onnx import helper

    node = helper.make_node('Run', [], ['x'], domain='com.others')
    onnx_file(path, nodes=[node])


@damaged('an ONNX file that keeps values elsewhere')
def _(path: Path) -> None:
    from onnx import TensorProto

    tensor = TensorProto(
        name='w',
        data_type=TensorProto.FLOAT,
        dims=[1],
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key='location', value='../../secret')
    onnx_file(path, initializer=[tensor])


@damaged('an image of another size than a file takes')
def _(path: Path) -> None:
    from dataclasses import replace

    onnx_file(path, replace(META, size=(64, 64)).json())


@bad('an exported program that is not trusted')
def _(world: World) -> None:
    Path('net.pt2').touch()
    detect(Path('net.pt2'))


@bad('OpenVINO is not installed', 'mmext[openvino]')
def _(world: World) -> None:
    needs_onnx()
    world.patch.setitem(__import__('sys').modules, 'openvino', None)
    config, checkpoint = world.config, world.checkpoint()
    world.tool('export', config, checkpoint, '--format', 'openvino')


@bad('an OpenVINO file without its weights', 'net.bin')
def _(world: World) -> None:
    pytest.importorskip('openvino', reason='openvino is not installed')
    Path('net.xml').write_text('<net name="a" version="11"><layers>')
    detect(Path('net.xml'))


@bad('mmext.Detector with a checkpoint and no config')
def _(world: World) -> None:
    detect(world.checkpoint())


def predict(title: str, options: str) -> None:
    """Registers options of tools/predict.py."""

    @bad(title)
    def _(world: World) -> None:
        needs_onnx()
        onnx_file(Path('net.onnx'))
        world.tool('predict', 'net.onnx', 'data/val', *options.split())


predict('slices of no pixels', '--slices 0 640')
predict('slices that overlap in full', '--slices 64 64 --overlap 1')
predict('a lowest score in percent', '--score-thr 30')
predict('the config of an exported file', '--config tiny.py')
predict('the fastest way to run an exported file', '--fast exact')


@bad('a pattern that fits no file')
def _(world: World) -> None:
    world.tool('predict', 'net.onnx', 'data/*.tif')


@bad('an exported file that does not exist')
def _(world: World) -> None:
    world.tool('predict', 'net.onnx', 'data/val')
