# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The SHA-256 of test data changes with the images and labels alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny_run import MASK_RCNN, make_coco, write_config

from mmext.errors import UserError
from mmext.evaluation.groups import named_images, read_groups
from mmext.experiments import test_data as data
from mmext.utils.config import load_config
from mmext.utils.files import sha256


@pytest.mark.parametrize('evaluator', ['CocoMetric', 'FastCocoMetric'])
def test_coco_data_are_their_annotations(
    tmp_path: Path, evaluator: str
) -> None:
    root = make_coco(tmp_path / 'coco', 1, 3)
    more = f"test_evaluator.update(type='{evaluator}')"
    config = write_config(tmp_path / 'a.py', root, base=MASK_RCNN, more=more)
    cfg = load_config(config)
    found = data.test_data(cfg)
    assert found == data.TestData(
        task='bbox',
        sha256=sha256(root / 'val.json'),
        images=3,
        classes=('square', 'disc'),
        annotations=str(root / 'val.json'),
    )
    assert data.test_data(cfg, 'segm').task == 'segm'
    with pytest.raises(UserError, match='does not evaluate mIoU'):
        data.test_data(cfg, 'mIoU')
    cfg.test_evaluator.metric = 'segm'
    assert data.test_data(cfg).task == 'segm'
    cfg.test_evaluator.metric = 'proposal_fast'
    with pytest.raises(UserError, match='does not evaluate bbox, segm'):
        data.test_data(cfg)
    cfg.test_evaluator.update(metric='bbox', ann_file=None)
    assert data.test_data(cfg).sha256 == found.sha256
    cfg.test_evaluator.ann_file = str(root / 'test.json')
    with pytest.raises(UserError, match='test.json'):
        data.test_data(cfg)


def seg_config(root: Path) -> Config:
    pytest.importorskip('mmseg')
    dataset = {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': 'images', 'seg_map_path': 'maps'},
        'img_suffix': '.png',
        'metainfo': {'classes': ('sky', 'road')},
        'pipeline': [{'type': 'LoadImageFromFile'}],
    }
    return Config(
        {
            'default_scope': 'mmseg',
            'test_dataloader': {'dataset': dataset},
            'test_evaluator': {'type': 'IoUMetric'},
        }
    )


def folder_config(root: Path) -> Config:
    pytest.importorskip('mmpretrain')
    dataset = {'type': 'CustomDataset', 'data_prefix': str(root / 'classes')}
    return Config(
        {
            'default_scope': 'mmpretrain',
            'test_dataloader': {'dataset': dataset},
            'test_evaluator': [{'type': 'Accuracy'}],
        }
    )


def draw(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(3):
        names = f'images/{i}.png', f'maps/{i}.png', f'classes/c{i % 2}/{i}.png'
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 2, (4, 4), np.uint8))
    return root


@pytest.mark.parametrize('make', [seg_config, folder_config])
def test_other_data_are_names_and_labels(tmp_path: Path, make) -> None:
    root = draw(tmp_path / 'here')
    found = data.test_data(make(root))
    assert found.images == 3 and found.annotations is None
    assert len(found.classes) == 2
    group = read_groups('0|$', named_images(found.names, root))
    assert {*group.tolist()} == {0, 1}
    moved = tmp_path / 'else' / 'where'
    shutil.copytree(root, moved)
    assert data.test_data(make(moved)) == found
    if make is seg_config:
        cv2.imwrite(str(moved / 'maps/1.png'), np.zeros((4, 4), np.uint8))
    else:
        (moved / 'classes/c1/1.png').rename(moved / 'classes/c0/1.png')
        (moved / 'classes/c1/2.png').write_bytes(b'')
    assert data.test_data(make(moved)).sha256 != found.sha256
    shutil.rmtree(moved / ('images' if make is seg_config else 'classes'))
    with pytest.raises(UserError, match='test_dataloader.dataset'):
        data.test_data(make(moved))


def test_a_class_map_that_is_absent(tmp_path: Path) -> None:
    root = draw(tmp_path)
    (root / 'maps/1.png').unlink()
    with pytest.raises(UserError, match='class map of .*1.png cannot be read'):
        data.test_data(seg_config(root))
