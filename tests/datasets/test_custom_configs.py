# Licensed under the Apache License, Version 2.0. See LICENSE.
"""configs/custom: names from the JSON, heads of that size, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmext.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs' / 'custom'
BOXES = sorted(p.stem for p in CONFIGS.glob('*.py') if 'mask' not in p.name)


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def heads(model: dict) -> list[int]:
    """Every ``num_classes`` below ``model``."""
    found = []
    for key, value in model.items():
        if key == 'num_classes':
            found.append(value)
        elif isinstance(value, dict):
            found += heads(value)
    return found


@pytest.mark.parametrize('name', BOXES)
def test_names_and_heads_come_from_the_json(name, shared, monkeypatch):
    monkeypatch.setenv('MMEXT_DATA', str(shared('data/bccd')))
    cfg = load(name)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.metainfo.classes == ('RBC', 'WBC', 'Platelets')
        assert Path(dataset.ann_file).is_file()
        assert Path(dataset.data_prefix.img).is_dir()
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert set(heads(cfg.model)) == {3}


def test_masks(shared, monkeypatch):
    name = 'mask-rcnn_r50_fpn_12e_custom'
    monkeypatch.setenv('MMEXT_DATA', str(shared('data/nuclei')))
    cfg = load(name)
    assert heads(cfg.model) == [1, 1]
    assert cfg.train_dataloader.dataset.pipeline[1].with_mask
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    monkeypatch.setenv('MMEXT_DATA', str(shared('data/bccd')))
    with pytest.raises(UserError, match='have a box and no mask'):
        load(name)


def test_some_of_the_classes(shared, monkeypatch):
    monkeypatch.setenv('MMEXT_DATA', str(shared('data/bccd')))
    monkeypatch.setenv('MMEXT_CLASSES', 'Platelets, WBC')
    cfg = load(BOXES[0])
    assert cfg.train_dataloader.dataset.metainfo.classes == (
        'WBC',
        'Platelets',
    )
    assert set(heads(cfg.model)) == {2}
    monkeypatch.setenv('MMEXT_CLASSES', 'Platelet')
    with pytest.raises(UserError, match="Did you mean 'Platelets'"):
        load(BOXES[0])


def test_without_data_the_shapes_stand_in(monkeypatch, tmp_path):
    monkeypatch.delenv('MMEXT_DATA', raising=False)
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path))
    cfg = load(BOXES[0])
    assert cfg.train_dataloader.dataset.metainfo.classes[0] == 'circle'
    assert set(heads(cfg.model)) == {5}


def test_a_wrong_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv('MMEXT_DATA', str(tmp_path / 'gone'))
    with pytest.raises(UserError, match='gone does not exist'):
        load(BOXES[0])
