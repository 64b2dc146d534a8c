# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detectors become files that detect the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
from commands import run_tool
from onnx_files import onnx_file
from tiny_families import FAMILIES, write_weights

import mmext
from mmext.errors import UserError
from mmext.export import parity, write
from mmext.export.formats import SUFFIXES
from mmext.export.metadata import Metadata
from mmext.export.tracing.trace import trace
from mmext.export.tracing.traced import TracedDetector
from mmext.export.write import Exported, export_detector
from mmext.utils.files import sha256

#: Their networks differ. The others have the marker slow.
QUICK = ('mask-rcnn',)
STEPNET = """
model['backbone'].update(
    _delete_=True, type='StepNetResNet', depth=18, base_channels=16,
    stem_channels=16)
"""


def needs_onnx() -> None:
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed')


@pytest.fixture(scope='module')
def exported(family, tmp_path_factory) -> Callable[[str], Exported]:
    """Exports a family as ONNX, once."""
    known: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        needs_onnx()
        if name not in known:
            out = tmp_path_factory.mktemp(name) / 'net.onnx'
            made = family(name)
            known[name] = export_detector(made.config, made.checkpoint, out)
        return known[name]

    return make


@pytest.mark.parametrize(
    'name',
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_the_file_detects_what_the_model_does(name, exported, family, data):
    done, made = exported(name), family(name)
    assert done.parity.agrees and done.parity.pairs > 100
    assert [p.name for p in done.path.parent.iterdir()] == ['net.onnx']
    assert done.digests == {done.path: sha256(done.path)}
    detector = mmext.Detector(done.path, batch_size=2)
    assert detector.classes == ('square', 'disc')
    about = done.meta.about
    assert about['hashes']['checkpoint'] == sha256(made.checkpoint)
    assert about['thresholds'] == made.cfg.model.test_cfg.to_dict()
    # From the images to the results, of one size and of another.
    model = mmext.Detector(made.checkpoint, made.config)
    paths = sorted((data / 'val').glob('*.png'))
    tall = cv2.imread(str(paths[0])).transpose(1, 0, 2).copy()
    images = [*paths, tall]
    result = parity.Parity()
    for one, other in zip(model(images), detector(images), strict=True):
        result.add(one, other)
    assert result.agrees, result.summary()


def test_ap_is_compared_on_the_test_images(exported):
    done = exported('mask-rcnn')
    kinds = [report.iou_type for report in done.reports]
    assert done.note or kinds == ['bbox', 'segm']
    for report in done.reports:
        (found,) = report.comparisons
        assert found.images == 4
        low, high = found.differences['AP'].interval
        assert low <= found.differences['AP'].value <= high
    text = done.table().text()
    assert sha256(done.path) in text
    assert 'AP (segm)' in text or done.note in text


def test_no_library_of_operators_is_needed(exported):
    """The file uses operators of ONNX only, and holds its values."""
    path = exported('mask-rcnn').path
    import onnx

    model = onnx.load(path)
    assert {opset.domain for opset in model.opset_import} == {''}
    onnx.checker.check_model(model)
    (props,) = [p for p in model.metadata_props if p.key == 'mmext']
    assert json.loads(props.value)['classes'] == ['square', 'disc']
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape] == [0, 3, 0, 0]


def test_a_file_that_disagrees_is_not_written(
    family, tmp_path, monkeypatch, data
):
    """The file of this test finds one box, whatever the image."""
    needs_onnx()
    made = family('retinanet')
    out = tmp_path / 'net.onnx'

    def writes(program: object, meta: Metadata, path: Path, _: int) -> None:
        onnx_file(path, meta.json())

    monkeypatch.setattr(parity, 'BATCHES', (1,))
    monkeypatch.setattr(write, 'trace', lambda *_: (None, 1))
    monkeypatch.setattr(write.onnx_format, 'write', writes)
    options = {'images': data / 'val', 'check': 1}
    with pytest.raises(UserError, match='disagrees with the model'):
        export_detector(made.config, made.checkpoint, out, **options)
    assert not list(tmp_path.iterdir())
    steps = []
    done = export_detector(
        made.config,
        made.checkpoint,
        out,
        force=True,
        progress=lambda *step: steps.append(step),
        **options,
    )
    names, shares = zip(*steps, strict=True)
    assert names[0] == 'reading the model' and 'net.onnx' in names[-1]
    assert [*shares] == sorted(shares) and shares[-1] < 1
    assert not done.parity.agrees and out.is_file() and not done.reports
    assert 'no annotations' in done.table().text()


@pytest.mark.slow
def test_a_program_of_torch(family, tmp_path, data):
    made = family('retinanet')
    out = tmp_path / 'net.pt2'
    done = export_detector(
        made.config,
        made.checkpoint,
        out,
        file_format='torch',
        precisions=['bf16'],
        images=data / 'val',
    )
    assert done.parity.agrees and done.parity.score == 0
    assert [*done.milliseconds] == ['model', 'net.pt2', 'net.bf16.pt2']
    # It can run code when it is read.
    with pytest.raises(UserError, match='can run any code'):
        mmext.Detector(out)
    image = data / 'val' / '1.png'
    detector = mmext.Detector(out, trust_checkpoint=done.digests[out])
    (found,) = detector(image)
    half = tmp_path / 'net.bf16.pt2'
    detector = mmext.Detector(half, trust_checkpoint=done.digests[half])
    rows, _ = parity.pair(found, detector(image)[0], 2.0)
    assert 0.8 * len(found) < len(rows) > 20


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
def test_smaller_files(kind, family, tmp_path, data):
    """Of one size, which the images for int8 are resized to."""
    needs_onnx()
    if kind == 'openvino':
        pytest.importorskip('openvino', reason='openvino is not installed')
    made = family('retinanet')
    out = tmp_path / ('net' + SUFFIXES[kind])
    done = export_detector(
        made.config,
        made.checkpoint,
        out,
        file_format=kind,
        precisions=['fp16', 'int8'],
        size=(160, 128),
        images=data / 'val',
    )
    assert done.parity.agrees
    sizes = {}
    image = cv2.resize(cv2.imread(str(data / 'val' / '1.png')), (160, 128))
    (expected,) = mmext.Detector(out)(image)
    for name, path in zip(('', 'fp16', 'int8'), done.digests, strict=True):
        assert path.name == f'net.{name}{out.suffix}'.replace('..', '.')
        parts = {path, path.with_suffix('.bin')}
        sizes[name] = sum(p.stat().st_size for p in parts if p.exists())
        (found,) = mmext.Detector(path)(image)
        rows, _ = parity.pair(expected, found, 4.0)
        assert len(rows) > 0.7 * len(expected) > 20
    assert sizes['int8'] < 0.55 * sizes[''] and sizes['fp16'] < 0.8 * sizes['']


def test_stepnet_in_batches_that_were_not_traced(family, tmp_path):
    """Its norms are scaled by image, which must not fix the batch."""
    made = family('retinanet')
    config = tmp_path / 'stepnet.py'
    config.write_text(made.config.read_text() + STEPNET)
    from mmext.engine.predict import load_detector
    from mmext.utils.config import load_config

    cfg = load_config(config)
    model = load_detector(cfg, write_weights(config), 'cpu').model
    net = TracedDetector(model.to(memory_format=torch.contiguous_format))
    program, multiple = trace(net.eval())
    assert multiple == 1
    run = program.module()
    for shape in ((1, 3, 133, 201), (3, 3, 160, 96), (2, 3, 20, 50)):
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            expected, found = net(images), run(images)
        there = expected[1] >= 0
        assert torch.equal(there, found[1] >= 0) and there.sum() > 10
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one[there], other[there])


@pytest.mark.slow
def test_a_file_for_one_size(family, tmp_path, data, capsys):
    """Exported with the tool."""
    needs_onnx()
    made = family('rtmdet')
    out = tmp_path / 'net.onnx'
    command = ('export.py', made.config, made.checkpoint, '--out', out)
    assert run_tool(*command, '--size', 160, 128) == 0
    printed = capsys.readouterr().out
    assert '4 images in batches of 1 x 160x128, 3 x 160x128' in printed
    assert out.name in printed and sha256(out)[:40] in printed
    image = cv2.imread(str(data / 'val' / '1.png'))
    assert len(mmext.Detector(out)([image, image])[1]) > 10


def test_what_stops_a_backbone_is_named(family, monkeypatch):
    made = family('retinanet')
    layer = type(made.model.neck)
    forward = layer.forward

    def stops(self, inputs):
        if float(inputs[0].sum()) == 0.5:
            return None
        return forward(self, inputs)

    monkeypatch.setattr(layer, 'forward', stops)
    with pytest.raises(UserError, match='torch.export cannot follow') as info:
        trace(TracedDetector(made.model).eval())
    assert 'mmdet/models/' in info.value.problem
    assert '--size' in info.value.fix
