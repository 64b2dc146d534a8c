# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The fastest way to run a model is one that finds the same."""

from __future__ import annotations

import copy

import cv2
import pytest
import torch
from onnx_files import onnx_file

import mmext
from mmext.errors import UserError
from mmext.export import fast
from mmext.export.bf16 import in_bf16
from mmext.export.eager import EagerDetector
from mmext.export.parity import BF16, Parity
from mmext.export.preparation import resized


@pytest.fixture(scope='module')
def pictures(data) -> list:
    paths = sorted((data / 'val').glob('*.png'))
    return [resized(cv2.imread(str(path)), (128, 160)) for path in paths]


@pytest.fixture
def by_order(monkeypatch) -> None:
    """Times that make the last way the fastest."""

    def in_turn(work: dict, rounds: int) -> dict[str, list[float]]:
        return {name: [1 / i] for i, name in enumerate(work, 1)}

    monkeypatch.setattr(fast, 'in_turn', in_turn)


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError('no C++ compiler')

    monkeypatch.setattr(torch, 'compile', no_compiler)


def test_the_fastest_is_chosen(family, pictures, by_order, monkeypatch):
    quick(monkeypatch)
    model = family('retinanet').model
    before = copy.deepcopy(model.state_dict())
    detector, table = fast.fastest(model, pictures[:2])
    rows = {row[0]: row[1:] for row in table.rows}
    assert [*rows] == [
        'as loaded',
        'norms folded',
        'norms folded, channels last (chosen)',
        'norms folded, channels last, compiled',
    ]
    assert rows['norms folded, channels last, compiled'] == [
        'left out',
        "RuntimeError: 'no C++ compiler'",
    ]
    parity = Parity()
    for picture in pictures:
        (one,), (other,) = EagerDetector(model)([picture]), detector([picture])
        parity.add(one, other)
    assert parity.agrees and parity.pairs > 50 and parity.box > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_one_that_differs_is_left_out(family, pictures, by_order, monkeypatch):
    quick(monkeypatch)

    def wrong(model: torch.nn.Module, _: object) -> torch.nn.Module:
        model = copy.deepcopy(model)
        model.bbox_head.retina_reg.bias.data += 0.1
        return model

    monkeypatch.setattr(fast, 'folded', wrong)
    model = family('retinanet').model
    detector, table = fast.fastest(model, pictures[:1])
    assert detector.model is model
    assert table.rows[0][0] == 'as loaded (chosen)'
    assert {row[1] for row in table.rows[1:]} == {'left out'}
    assert '(limit' in table.rows[1][2]


@pytest.mark.parametrize('name', ['retinanet', 'mask-rcnn', 'rtmdet-ins'])
def test_bf16(name, family, pictures):
    model = family(name).model
    half = in_bf16(model)
    parity = Parity(BF16)
    for picture in pictures:
        (one,), (other,) = (EagerDetector(m)([picture]) for m in (model, half))
        parity.add(one, other)
    # Random weights: rounding changes the order of many scores.
    assert parity.pairs > 50 and parity.score > 1e-4


def test_an_exported_file_runs_in_one_way(tmp_path, data):
    detector = mmext.Detector(onnx_file(tmp_path / 'net.onnx'))
    with pytest.raises(UserError, match='runs in one way only'):
        detector.speed_up([data / 'val' / '1.png'])
