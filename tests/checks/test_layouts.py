# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds a folder in COCO format, checks it, and makes a config use it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from json_files import edit_json
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope

from mmext.checks.config import find_config_splits
from mmext.checks.data import check_data
from mmext.checks.layouts import find_coco_folder, use_coco_folder
from mmext.checks.report import recall
from mmext.datasets.shapes.generate import CLASSES, write_shapes
from mmext.errors import UserError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs/demo/faster-rcnn_r18_fpn_demo_shapes.py'
TRAIN, VAL = (f'annotations/instances_{s}.json' for s in ('train', 'val'))


@pytest.fixture(scope='module')
def original(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp('shapes') / 's', 6, 3)


@pytest.fixture
def data(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / 'data'))


def test_the_files_of_a_folder(data):
    found = find_coco_folder(data)
    assert found.classes == CLASSES
    assert found.ann_files['val'] == str(data / VAL)
    assert found.img_dirs['train'] == str(data / 'train')
    assert found.num_images == {'train': 6, 'val': 3}


@pytest.mark.parametrize(
    'move',
    [
        {'train': 'images/train', 'val': 'images/val'},
        {
            'train': 'train2017',
            'val': 'val2017',
            TRAIN: 'annotations/instances_train2017.json',
            VAL: 'annotations/instances_val2017.json',
        },
        {TRAIN: 'train.json', VAL: 'my_val.json'},
    ],
    ids=['images', '2017', 'flat'],
)
def test_other_layouts(data, move):
    for old, new in move.items():
        (data / new).parent.mkdir(exist_ok=True)
        (data / old).rename(data / new)
    assert find_coco_folder(data).classes == CLASSES


@pytest.mark.parametrize('name', ['bccd', 'nuclei', 'coco_mini'])
def test_real_data(shared, name):
    found = find_coco_folder(shared(f'data/{name}'), masks=name != 'bccd')
    assert len(found.classes) == {'bccd': 3, 'nuclei': 1}.get(name, 80)
    assert found.ann_files['train'].endswith('instances_train.json')


def test_classes_are_taken_in_the_order_of_the_file(data):
    """mmdet numbers labels in that order, not in the config's."""
    found = find_coco_folder(data, ['star', 'circle'])
    assert found.classes == ('circle', 'star')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (shutil.rmtree, 'does not exist'),
        (
            lambda d: shutil.rmtree(d / 'annotations'),
            r'has no annotations/instances_train.json, .* it holds .*train',
        ),
        (
            lambda d: shutil.rmtree(d / 'val'),
            r'none of the 3 images of .* is in .*/val: .*',
        ),
        (
            lambda d: (d / 'train/000003.png').unlink(),
            '1 of 6 images .*: 000003.png',
        ),
        (
            lambda d: (d / VAL).write_text('{'),
            'instances_val.json is not JSON',
        ),
        (
            lambda d: (d / VAL).write_text('[]'),
            'not a COCO annotation file: it is a list',
        ),
    ],
)
def test_folders_with_errors(data, damage, message):
    damage(data)
    with pytest.raises(UserError, match=message):
        find_coco_folder(data)


@pytest.mark.parametrize(
    ('file', 'change', 'message'),
    [
        (
            VAL,
            lambda c: c.pop('categories'),
            "no list 'categories'; its keys are .*images",
        ),
        (
            TRAIN,
            lambda c: c['annotations'][4].pop('bbox'),
            r"annotations\[4\] has no 'bbox'",
        ),
        (
            VAL,
            lambda c: c['categories'].reverse(),
            'same names in the same order',
        ),
        (
            TRAIN,
            lambda c: c['categories'][1].update(name='star'),
            "'star' is given to ids",
        ),
    ],
)
def test_annotations_with_errors(data, file, change, message):
    edit_json(data / file, change)
    with pytest.raises(UserError, match=message):
        find_coco_folder(data)


def test_an_unknown_class_is_reported_with_the_nearest(data):
    with pytest.raises(UserError, match="'Stars'.*\n.*mean 'star'.*circle"):
        find_coco_folder(data, ['circle', 'Stars'])


def test_no_annotation_of_the_chosen_class(data):
    def keep_stars(content: dict) -> None:
        content['annotations'] = [
            a for a in content['annotations'] if a['category_id'] == 4
        ]

    edit_json(data / TRAIN, keep_stars)
    with pytest.raises(UserError, match=r'chosen class \(circle\).*\n.*star'):
        find_coco_folder(data, ['circle'])


def test_boxes_only_cannot_train_masks(data):
    edit_json(data / TRAIN, lambda c: c['annotations'][2].pop('segmentation'))
    find_coco_folder(data)
    with pytest.raises(UserError, match=r'1 of \d+ .*no mask .*ids? 3\)'):
        find_coco_folder(data, masks=True)


def test_a_config_uses_the_folder(data):
    """The labels of the data set are the classes of the JSON."""
    for file in (TRAIN, VAL):
        edit_json(data / file, lambda c: c['categories'].reverse())
    init_default_scope('mmdet')
    cfg = Config.fromfile(DEMO)
    old = cfg.copy()
    use_coco_folder(cfg, find_coco_folder(data, ['circle', 'star']))
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert 'num_classes' not in cfg.model.rpn_head
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = cfg[loader].dataset
        assert dataset.pipeline == old[loader].dataset.pipeline
        built = DATASETS.build(dataset)
        assert built.metainfo['classes'] == ('star', 'circle')
        source = json.loads(Path(dataset.ann_file).read_text())
        names = {c['id']: c['name'] for c in source['categories']}
        for i in range(len(built)):
            info = built.get_data_info(i)
            want = [
                names[a['category_id']]
                for a in source['annotations']
                if a['image_id'] == info['img_id']
                and names[a['category_id']] in ('circle', 'star')
            ]
            got = [
                built.metainfo['classes'][x['bbox_label']]
                for x in info['instances']
            ]
            assert got == want
    assert cfg.val_evaluator.type == 'CocoMetric'
    assert cfg.test_evaluator.ann_file == str(data / VAL)


def test_a_run_uses_the_result_of_its_folder(data, tmp_path, monkeypatch):
    """Also a test, which reads the validation data alone."""
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    broken = sorted((data / 'val').glob('*.*'))[0]
    broken.write_bytes(b'')
    errors = check_data(data, workers=1).errors
    assert [e.check for e in errors] == ['images unreadable']
    init_default_scope('mmdet')
    cfg = Config.fromfile(DEMO)
    use_coco_folder(cfg, find_coco_folder(data))
    for stages, place in (
        (('train', 'val'), 'val_dataloader.dataset'),
        (('test',), 'test_dataloader.dataset'),
    ):
        found = recall(find_config_splits(cfg, stages))
        (error,) = [f for f in found if f.level == 'error']
        assert error == replace(errors[0], split=place)
    assert recall(find_config_splits(cfg, ('train',))) is None


@pytest.mark.parametrize(
    ('name', 'wrapper'),
    [
        ('faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco', 'RepeatDataset'),
        ('yolox/yolox_tiny_8xb8-300e_coco', 'MultiImageMixDataset'),
    ],
)
def test_a_wrapped_data_set_stays_wrapped(data, name, wrapper):
    cfg = get_config(f'mmdet::{name}.py')
    old = cfg.train_dataloader.dataset.to_dict()
    use_coco_folder(cfg, find_coco_folder(data))
    new = cfg.train_dataloader.dataset
    assert new.type == wrapper
    assert new.get('pipeline') == old.get('pipeline')
    assert new.dataset.pipeline == old['dataset']['pipeline']
    assert new.dataset.filter_cfg.min_size == 1
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = DATASETS.build(new)
        assert len(built) >= 6
        assert len(built[0]['data_samples'].gt_instances.bboxes) > 0


def test_several_data_sets_in_a_loader_are_an_error(data):
    cfg = Config.fromfile(DEMO)
    cfg.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': []}
    with pytest.raises(UserError, match='type ConcatDataset has no pipeline'):
        use_coco_folder(cfg, find_coco_folder(data))


def test_images_of_an_annotation_file_with_both_words_in_its_name(data):
    name = 'instances_val_of_training_day.json'
    (data / VAL).rename(data / 'annotations' / name)
    assert find_coco_folder(data).img_dirs['val'] == str(data / 'val')
