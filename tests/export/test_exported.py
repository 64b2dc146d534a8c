# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Files of others are read as data, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import run_python
from onnx_files import META, onnx_file

from mmext.checkpoints.trust import trusting
from mmext.errors import UserError
from mmext.export.exported import ExportedFile
from mmext.export.formats import KEY
from mmext.export.metadata import Metadata, parse
from mmext.export.preparation import Prepared
from mmext.utils.files import sha256


def image(height: int, width: int) -> Prepared:
    pixels = np.zeros((height, width, 3), np.uint8)
    return Prepared(pixels, (2 * height, 4 * width), (0.25, 0.5))


def test_rows_without_a_detection_are_left_out(tmp_path):
    file = ExportedFile(onnx_file(tmp_path / 'a.onnx'))
    assert file.meta == META
    (found,) = file([image(8, 8)])
    # In pixels of the image, of which four in x are one of the input.
    assert found.boxes.tolist() == [[4, 4, 12, 8]]
    assert found.scores.tolist() == [0.5] and found.labels.tolist() == [1]


@pytest.mark.parametrize('part', [0, 10, 0.5, 0.99])
def test_a_cut_file(part, tmp_path):
    path = onnx_file(tmp_path / 'a.onnx')
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data)) if part < 1 else part])
    with pytest.raises(UserError):
        ExportedFile(path)


def test_no_onnx(tmp_path):
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    path = tmp_path / 'a.onnx'
    path.write_text('<html>404 not found</html>')
    with pytest.raises(UserError, match='not a complete ONNX model'):
        ExportedFile(path)
    with pytest.raises(UserError, match='does not exist'):
        ExportedFile(tmp_path / 'b.onnx')


def test_an_operator_that_onnxruntime_does_not_have(tmp_path):
    pytest.importorskip('onnx', reason='onnx is not installed')
    from onnx import helper

    node = helper.make_node('NoOperator', [], ['x'])
    path = onnx_file(tmp_path / 'a.onnx', nodes=[node])
    with pytest.raises(UserError, match='onnxruntime .* cannot run') as info:
        ExportedFile(path)
    assert '--opset 18' in info.value.fix


def test_another_model(tmp_path):
    path = onnx_file(tmp_path / 'a.onnx', input='pixels')
    with pytest.raises(UserError, match='no detector: it makes boxes, scor'):
        ExportedFile(path)


def test_a_file_that_fails(tmp_path):
    """An exporter may have taken the batch for a constant."""
    file = ExportedFile(onnx_file(tmp_path / 'a.onnx'))

    def fails(images: np.ndarray) -> None:
        raise RuntimeError('indices out of bounds')

    file._run = fails
    with pytest.raises(UserError, match='fails for 1 images of 8x8') as info:
        file([image(8, 8)])
    assert 'indices out of bounds' in info.value.problem


def test_a_file_for_one_image_only(tmp_path):
    file = ExportedFile(onnx_file(tmp_path / 'a.onnx'))
    with pytest.raises(UserError, match='fails for 2 images of 8x8'):
        file([image(8, 8)] * 2)


@pytest.mark.parametrize('inside', [False, True])
def test_custom_operators_are_refused(inside, tmp_path):
    pytest.importorskip('onnx', reason='onnx is not installed')
    from onnx import helper

    node = helper.make_node('Run', [], ['x'], domain='com.others')
    if inside:  # of a branch
        graph = helper.make_graph([node], 'g', [], [])
        node = helper.make_node(
            'If', ['c'], [], then_branch=graph, else_branch=graph
        )
    path = onnx_file(tmp_path / 'a.onnx', nodes=[node])
    with pytest.raises(UserError, match='operators of com.others'):
        ExportedFile(path)


@pytest.mark.parametrize('attribute', [False, True])
def test_values_in_other_files_are_refused(attribute, tmp_path):
    pytest.importorskip('onnx', reason='onnx is not installed')
    from onnx import TensorProto, helper

    tensor = TensorProto(
        name='w',
        data_type=TensorProto.FLOAT,
        dims=[1],
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key='location', value='../../etc/passwd')
    change = {'initializer': [tensor]}
    if attribute:
        node = helper.make_node('Constant', [], ['w'], value=tensor)
        change = {'nodes': [node]}
    path = onnx_file(tmp_path / 'a.onnx', **change)
    with pytest.raises(UserError, match='in another file.*etc/passwd'):
        ExportedFile(path)


def test_the_size(tmp_path):
    file = ExportedFile(onnx_file(tmp_path / 'a.onnx'))
    with pytest.raises(UserError, match='multiples of 2.*9x8 pixels'):
        file([image(8, 9)])
    meta = Metadata(META.classes, META.preparation, size=(8, 16))
    file = ExportedFile(onnx_file(tmp_path / 'b.onnx', meta.json()))
    assert len(file([image(8, 16)])) == 1
    with pytest.raises(UserError, match='16x8 pixels, and this one has 8x8'):
        file([image(8, 8)])


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        (None, 'has no metadata of mmext'),
        ('', 'has no metadata of mmext'),
        ('{"a"', 'JSONDecodeError'),
        ('[1]', 'TypeError'),
        ('{}', "KeyError: .*'preparation'"),
        ('[' * 10**5, 'RecursionError'),
    ],
)
def test_metadata_of_others(text, problem):
    with pytest.raises(UserError, match=problem):
        parse(text, 'a.onnx')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('size', [8, 10**6]),
        ('size', [8]),
        ('multiple', 0),
        ('multiple', 1.5),
        ('masks', {'kind': 'other', 'threshold': 0.5}),
        ('classes', 3),
    ],
)
def test_values_of_others(key, value):
    content = {**json.loads(META.json()), key: value}
    with pytest.raises(UserError, match='are not those of mmext'):
        parse(json.dumps(content), 'a.onnx')


def test_metadata_are_read_as_written():
    masks = {'kind': 'image', 'threshold': 0.25, 'stride': 8}
    meta = Metadata(
        ('a',), META.preparation, (3, 5), 1, masks, {'detector': 'x'}
    )
    assert parse(meta.json(), 'a.onnx') == meta


def test_a_program_must_be_trusted(tmp_path):
    path = tmp_path / 'a.pt2'
    path.write_bytes(b'no program')
    with pytest.raises(UserError, match='can run any code') as info:
        ExportedFile(path)
    assert sha256(path) in info.value.fix
    with (
        trusting(sha256(path)),
        pytest.raises(UserError, match='not a complete program'),
    ):
        ExportedFile(path)


def test_a_trusted_program(tmp_path):
    class Finds(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            score = image.float().mean((1, 2, 3))[:, None]
            boxes = score[..., None].expand(-1, -1, 4) + 1
            return boxes, score + 0.5, torch.zeros_like(score).long()

    path = tmp_path / 'a.pt2'
    example = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    program = torch.export.export(Finds(), (example,))
    torch.export.save(program, path, extra_files={KEY: META.json()})
    with trusting(sha256(path)):
        file = ExportedFile(path)
    (found,) = file([image(8, 8)])
    assert found.boxes.tolist() == [[4, 2, 4, 2]]


def test_running_onnx_imports_no_framework(tmp_path):
    path = onnx_file(tmp_path / 'a.onnx')
    code = (
        'import sys, numpy, mmext\n'
        f'detector = mmext.Detector({str(path)!r})\n'
        'assert len(detector(numpy.zeros((9, 9, 3), numpy.uint8))[0]) == 1\n'
        "found = {'torch', 'mmcv', 'mmdet', 'mmengine'} & {*sys.modules}\n"
        'assert not found, found'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
