# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/misc/check_data.py as a user runs it."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import make_coco, write_config

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/misc/check_data.py'


@pytest.fixture(scope='module')
def original(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture
def data(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / 'coco'))


@pytest.fixture
def run(monkeypatch, capfd, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Exit status, output and errors."""
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        seen = capfd.readouterr()
        assert 'Traceback' not in seen.out + seen.err
        return end.value.code, seen.out, seen.err

    return call


def damage(data: Path) -> None:
    """One of each kind that --fix mends, two that it does not."""
    content = json.loads((data / 'train.json').read_text())
    content['annotations'][0].pop('area')
    content['annotations'][1]['image_id'] = 99
    content['annotations'][2]['id'] = content['annotations'][3]['id']
    content['annotations'][7]['segmentation'] = None
    (data / 'train.json').write_text(json.dumps(content))
    (data / 'val/2.png').write_bytes(b'\x89PNG')


def test_a_sound_folder(data, run):
    status, out, _ = run(data)
    assert status == 0
    assert 'train: 4 images (4 read), 8 annotations, 2 classes' in out
    assert out.strip().endswith('nothing wrong was found')


def test_a_sample_reads_no_more_than_it_must(data, run, monkeypatch):
    from mmext.checks import data as check_data

    monkeypatch.setattr(check_data, 'SAMPLE', 2)
    _, out, _ = run(data, '--sample')
    assert 'train: 4 images (2 read)' in out


def test_what_is_wrong_is_told_and_mended(data, run, tmp_path):
    damage(data)
    before = {f: f.read_bytes() for f in data.rglob('*.*')}
    mended = tmp_path / 'mended'
    status, out, _ = run(data, '--masks', '--workers', 3, '--fix', mended)
    assert status == 1
    assert '5 errors' in out
    assert f'wrote {mended / "train.json"}' in out
    assert 'still wrong: train: ' in out and 'no mask' in out
    assert {f: f.read_bytes() for f in before} == before
    # A second time: the name is taken, and nothing is written over.
    status, _, err = run(data, '--fix', mended)
    assert status == 2 and 'exists already' in err
    for name in ('train', 'val'):
        shutil.copy(mended / f'{name}.json', data / f'{name}.json')
    status, out, _ = run(data)  # boxes are enough here
    assert status == 0, out
    assert 'val: 4 images (4 read)' in out


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
    option = 'model.roi_head.bbox_head.num_classes=7'
    status, out, _ = run(config, '--cfg-options', option)
    assert status == 1
    assert 'roi_head.bbox_head has 7' in out


def test_what_cannot_be_checked(data, run, tmp_path):
    status, _, err = run(tmp_path / 'nowhere')
    assert status == 2 and 'does not exist' in err
    (data / 'val.json').write_text('{"images"')
    status, _, err = run(data)
    assert status == 2 and 'is not JSON' in err
    shapes = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py'
    status, _, err = run(shapes)
    assert status == 2 and 'names no COCO annotations' in err
