# Licensed under the Apache License, Version 2.0. See LICENSE.
"""configs/custom on a folder in COCO format, and on class maps."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer

import mmext
from mmext.checks.layouts import use_data_folder
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
NAMES = sorted(p.stem for p in (CONFIGS / 'custom').glob('*_custom.py'))
MASKS = 'mask-rcnn_r50_fpn_12e_custom'
BOXES = [name for name in NAMES if name != MASKS]
MAPS = 'fpn_starnet-s1_4k_custom-seg'


# Its official build is not part of the extra `openmmlab`.
needs_mmseg = pytest.mark.skipif(
    find_spec('mmseg') is None, reason='needs MMSegmentation'
)


def load(name: str) -> Config:
    return load_config(CONFIGS / 'custom' / f'{name}.py')


def heads(model: dict) -> list[int]:
    """Every ``num_classes`` below ``model``."""
    found = []
    for key, value in model.items():
        if key == 'num_classes':
            found.append(value)
        elif isinstance(value, dict):
            found += heads(value)
    return found


@pytest.mark.parametrize('name', NAMES)
def test_the_values_in_the_files_agree(name):
    cfg = load(name)
    assert set(heads(cfg.model)) == {len(cfg.classes)}
    assert cfg.train_dataloader.dataset.metainfo.classes == cfg.classes


@pytest.mark.parametrize('name', BOXES)
def test_names_and_heads_come_from_the_folder(name, shared):
    cfg = load(name)
    pipeline = cfg.train_dataloader.dataset.pipeline
    use_data_folder(cfg, shared('data/bccd'))
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.metainfo.classes == ('RBC', 'WBC', 'Platelets')
        assert Path(dataset.ann_file).is_file()
        assert Path(dataset.data_prefix.img).is_dir()
    assert cfg.train_dataloader.dataset.pipeline == pipeline
    assert cfg.val_evaluator.ann_file == cfg.val_dataloader.dataset.ann_file
    assert set(heads(cfg.model)) == {3}


def test_masks(shared):
    cfg = load(MASKS)
    use_data_folder(cfg, shared('data/nuclei'))
    assert heads(cfg.model) == [1, 1]
    assert cfg.train_dataloader.dataset.pipeline[1].with_mask
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    with pytest.raises(UserError, match='have a box and no mask'):
        use_data_folder(load(MASKS), shared('data/bccd'))


def test_some_of_the_classes(shared):
    cfg, data = load(BOXES[0]), shared('data/bccd')
    use_data_folder(cfg, data, classes=['Platelets', 'WBC'])
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert classes == ('WBC', 'Platelets')
    assert set(heads(cfg.model)) == {2}
    with pytest.raises(UserError, match="Did you mean 'Platelets'"):
        use_data_folder(load(BOXES[0]), data, classes=['Platelet'])


@needs_mmseg
def test_a_config_of_another_task(tmp_path):
    with pytest.raises(UserError, match='this one is for mmseg'):
        use_data_folder(load(MAPS), tmp_path)


@pytest.fixture
def own_maps(tmp_path) -> Path:
    """A config on class maps of three classes, of which 200 is ignored."""
    shutil.copytree(CONFIGS, tmp_path / 'configs')
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for folder in ('images', 'maps'):
            (tmp_path / folder / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (64, 80, 3), np.uint8)
            classes = rng.choice([0, 1, 2, 200], (64, 80)).astype(np.uint8)
            cv2.imwrite(f'{tmp_path}/images/{split}/{i}.png', image)
            cv2.imwrite(f'{tmp_path}/maps/{split}/{i}.png', classes)
    file = tmp_path / 'configs/_base_/datasets/custom_seg.py'
    text = file.read_text()
    for old, new in (
        ("'data/custom_seg/'", f"'{tmp_path}/'"),
        ("'.jpg'", "'.png'"),
        ("('background', 'object')", "('ground', 'leaf', 'stem')"),
        ('(220, 60, 60)]', '(220, 60, 60), (60, 220, 60)]'),
        ('ignore_index = 255', 'ignore_index = 200'),
        ('(512, 512)', '(64, 64)'),
        ('(2048, 512)', '(96, 64)'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    return tmp_path / 'configs/custom' / f'{MAPS}.py'


@needs_mmseg
def test_class_maps_are_trained_on(own_maps, tmp_path):
    cfg = load_config(own_maps)
    # There is no network.
    cfg.model.backbone.update(init_cfg=None, norm_eval=False)
    cfg.visualizer.name = str(tmp_path)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    runner = mmext.train(cfg, work_dir=tmp_path / 'work')
    Visualizer.get_instance(str(tmp_path)).close()
    assert runner.iter == 1
    assert runner.model.decode_head.num_classes == 3
    scalars = runner.message_hub.log_scalars
    assert np.isfinite(scalars['train/loss'].current())
    assert 0 < scalars['val/mIoU'].current() < 100


@pytest.fixture
def maps_config(own_maps, tmp_path, monkeypatch) -> Config:
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    cfg = load_config(own_maps)
    # There is no network.
    cfg.model.backbone.update(init_cfg=None, norm_eval=False)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.visualizer.name = str(tmp_path)
    return cfg


def add_label(tmp_path: Path, label: int, split: str = 'train') -> None:
    file = f'{tmp_path}/maps/{split}/1.png'
    found = cv2.imread(file, cv2.IMREAD_UNCHANGED)
    found[5, 5] = label
    cv2.imwrite(file, found)


@needs_mmseg
@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('label', [3, 199, 255])
def test_labels_that_are_no_classes(maps_config, tmp_path, split, label):
    """200 is ignored, 255 is not."""
    add_label(tmp_path, label, split)
    total = 4 if split == 'train' else 2
    message = (
        f'{split}_dataloader.dataset: 1 of {total} class maps have labels '
        rf'that are no classes: {label} \(the first: .*1.png\); the model '
        'has 3 classes, 0 to 2, and ignores 200'
    )
    with pytest.raises(UserError, match=message):
        mmext.train(maps_config)
    assert not (tmp_path / 'work').exists()


@needs_mmseg
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        # MMSegmentation would read it as class 0.
        (lambda m: m.astype(np.uint16) + 256, '0.png has label 456'),
        (lambda m: np.stack([m] * 3, -1), '0.png is a picture of 3 channels'),
        # As of an image that is turned by its EXIF tag.
        (np.transpose, '0.png is 64 x 80, and its image 80 x 64 as OpenCV'),
    ],
)
def test_class_maps_of_other_types(maps_config, tmp_path, change, message):
    file = f'{tmp_path}/maps/val/0.png'
    cv2.imwrite(file, change(cv2.imread(file, cv2.IMREAD_UNCHANGED)))
    with pytest.raises(UserError, match=message):
        mmext.train(maps_config)


@needs_mmseg
def test_images_without_class_maps(maps_config, tmp_path):
    (tmp_path / 'maps/train/2.png').unlink()
    with pytest.raises(UserError, match='1 of 4 images have no .*2.png'):
        mmext.train(maps_config)


@needs_mmseg
def test_all_class_maps_are_checked(own_maps, tmp_path, monkeypatch):
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    options = {'model.backbone.init_cfg': None}
    report = mmext.check_data(own_maps, cfg_options=options)
    assert report.errors == ()
    add_label(tmp_path, 7)
    report = mmext.check_data(own_maps, cfg_options=options)
    assert [f.check for f in report.errors] == ['class maps']
    assert 'class maps' in str(report)


@needs_mmseg
@pytest.mark.parametrize(
    'hook', ['SegVisualizationHook', 'DetVisualizationHook', None]
)
def test_pictures_of_segmentation(maps_config, tmp_path, hook):
    """--show-dir, whichever hook the config has."""
    cfg = maps_config
    assert 'visualization' not in cfg.default_hooks
    if hook is not None:
        cfg.default_hooks.visualization = {'type': hook}
    model = build_model(cfg.model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'n')
    for loader in ('val_dataloader', 'test_dataloader'):
        cfg[loader].update(num_workers=0, persistent_workers=False)
    mmext.test(cfg, tmp_path / 'n', show_dir='shown')
    Visualizer.get_instance(str(tmp_path)).close()
    (shown,) = (tmp_path / 'work').rglob('shown')
    found = sorted(p.relative_to(shown).as_posix() for p in shown.rglob('*'))
    assert found == ['0.png', '1.png']
    if hook == 'DetVisualizationHook':
        with pytest.raises(UserError, match="'SegVisualizationHook' or 'mmd"):
            mmext.test(cfg, tmp_path / 'n')
