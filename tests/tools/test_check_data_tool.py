# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/misc/check_data.py as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, run_tool
from json_files import edit_json
from tiny_run import make_coco, write_config

import mmext


@pytest.fixture
def data(tmp_path) -> Path:
    return make_coco(tmp_path / 'coco')


@pytest.fixture
def run(monkeypatch, capfd, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Exit status, output and errors."""
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))

    def call(*arguments: object) -> tuple[int, str, str]:
        status = run_tool('misc/check_data.py', *arguments)
        seen = capfd.readouterr()
        assert 'Traceback' not in seen.out + seen.err
        return status, seen.out, seen.err

    return call


def damage(data: Path) -> None:
    """Damages that --fix corrects, and two that it does not correct."""

    def change(content: dict) -> None:
        annotations = content['annotations']
        annotations[0].pop('area')
        annotations[1]['image_id'] = 99
        annotations[2]['id'] = annotations[3]['id']
        annotations[7]['segmentation'] = None

    edit_json(data / 'train.json', change)
    (data / 'val/2.png').write_bytes(b'\x89PNG')


def test_a_folder_without_errors(data, run, tmp_path):
    status, out, _ = run(data, '--fix', tmp_path / 'fixed')
    assert status == 0
    assert 'train: 4 images (4 read), 8 annotations, 2 classes' in out
    assert 'nothing wrong was found' in out
    assert 'nothing to correct' in out


def test_a_sample_reads_no_more_than_it_must(data, run, monkeypatch):
    monkeypatch.setattr('mmext.checks.splits.SAMPLE', 2)
    _, out, _ = run(data, '--sample')
    assert 'train: 4 images (2 read)' in out


def test_errors_are_reported_and_corrected(data, run, tmp_path):
    damage(data)
    before = {f: f.read_bytes() for f in data.rglob('*.*')}
    fixed = tmp_path / 'fixed'
    status, out, _ = run(data, '--masks', '--workers', 3, '--fix', fixed)
    assert status == 1
    assert '5 errors' in out
    assert f'wrote {fixed / "train.json"}' in out
    assert 'still wrong: train: ' in out and 'no mask' in out
    assert f'train on them: mmext train CONFIG --data {fixed}' in out
    assert {f: f.read_bytes() for f in before} == before
    # The second time the file exists, and is not overwritten.
    status, _, err = run(data, '--fix', fixed)
    assert status == 2 and 'exists already' in err
    # The new folder can be used alone; boxes are enough here.
    status, out, _ = run(fixed)
    assert status == 0, out
    assert 'val: 4 images (4 read)' in out


def test_masks_that_were_not_asked_for(data, run):
    """The note of a folder is an error with --masks."""
    content = json.loads((data / 'train.json').read_text())
    for annotation in content['annotations']:
        mask = annotation['segmentation'][0]
        annotation['segmentation'] = [[v / 128 for v in mask]]
    (data / 'train.json').write_text(json.dumps(content))
    status, out, _ = run(data)
    assert status == 0
    assert 'note: train: 8 of 8 masks are not in the box' in out
    status, out, _ = run(data, '--masks')
    assert status == 1
    assert 'error: train: 8 of 8 masks are not in the box' in out


def test_classes_in_any_order(data, run):
    status, out, _ = run(data, '--classes', 'disc', 'square')
    assert status == 0, out
    status, out, _ = run(data, '--classes', 'disk')
    assert status == 1
    assert "Did you mean 'disc'?" in out


def test_the_data_of_a_config(data, run, tmp_path):
    config = write_config(tmp_path / 'tiny.py', data)
    status, out, _ = run(config)
    assert status == 0
    assert 'train_dataloader.dataset: 4 images (4 read)' in out
    content = json.loads((data / 'val.json').read_text())
    content['annotations'][0]['id'] = 0
    (data / 'val.json').write_text(json.dumps(content))
    fixed = tmp_path / 'fixed'
    status, out, _ = run(config, '--fix', fixed)
    assert status == 0
    assert f'wrote {fixed / "train.json"}, unchanged' in out
    options = out.rpartition('use them: --cfg-options ')[2].split()
    assert len(options) == 3
    status, out, _ = run(config, '--cfg-options', *options)
    assert out.strip().endswith('nothing wrong was found')
    option = 'model.roi_head.bbox_head.num_classes=7'
    status, out, _ = run(config, '--cfg-options', option)
    assert status == 1
    assert 'roi_head.bbox_head has 7' in out


def test_data_that_cannot_be_checked(data, run, tmp_path):
    status, _, err = run(tmp_path / 'nowhere')
    assert status == 2 and 'does not exist' in err
    (data / 'val.json').write_text('{"images"')
    status, _, err = run(data)
    assert status == 2 and 'is not JSON' in err
    shapes = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py'
    status, _, err = run(shapes)
    assert status == 2 and 'names no COCO annotations' in err


def test_the_function_returns_what_the_tool_prints(data, run, tmp_path):
    damage(data)
    _, out, _ = run(data, '--masks')
    report = mmext.check_data(data, masks=True)
    assert str(report) == out.rstrip()
    assert len(report.errors) == 5
    assert report.fixed is None
    report = mmext.check_data(data, masks=True, fix=tmp_path / 'fixed')
    assert {file.name for file in report.fixed} == {'train.json', 'val.json'}
    assert [f.check for f in report.remaining] == ['masks']
