# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of data, heads and evaluators against each other."""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from json_files import edit_json
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from tiny_run import MASK_RCNN, write_config

from mmext.checks import preflight
from mmext.checks.config import check_heads, find_config_splits
from mmext.checks.findings import Finding
from mmext.checks.report import keep
from mmext.checks.splits import check_splits
from mmext.engine.guards.start_checks import CheckDataHook
from mmext.engine.launch import set_work_dir
from mmext.engine.optimizers import set_auto_scale_lr
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import parse_options
from mmext.utils.options import add_cfg_options

STAGES = ('train', 'val')


@pytest.fixture
def config(data, tmp_path, monkeypatch) -> Callable[..., Config]:
    """Reads a config of a tiny detector, with options."""
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))

    def read(options: dict | None = None, **more) -> Config:
        cfg = Config.fromfile(write_config(tmp_path / 'tiny.py', data, **more))
        cfg.merge_from_dict(options or {})
        cfg.work_dir = str(tmp_path / 'work')
        init_default_scope('mmdet')
        return cfg

    return read


def found(cfg: Config) -> list[Finding]:
    splits = find_config_splits(cfg, STAGES)
    model = build_model(cfg.model)
    findings = preflight.check_run_data(cfg, model, splits)
    return [f for f in findings if f.level != 'note']


def test_boxes_are_enough_for_a_box_detector(config, data):
    for split in STAGES:
        edit_json(
            data / f'{split}.json',
            lambda c: [a.pop('segmentation') for a in c['annotations']],
        )
    assert found(config()) == []


def test_some_of_the_classes(config):
    cfg = config({'model.roi_head.bbox_head.num_classes': 1})
    cfg.train_dataloader.dataset.metainfo.classes = ('disc',)
    cfg.val_dataloader.dataset.metainfo.classes = ('disc',)
    assert found(cfg) == []


def test_class_count_of_every_head(config):
    cfg = config(base=MASK_RCNN)
    # The mask head has mmdet's default if a config does not set it.
    (train,) = found(cfg)
    assert 'roi_head.mask_head has 80' in train.problem
    assert 'bbox_head' not in train.problem
    cfg.model.roi_head.mask_head.num_classes = 2
    assert found(cfg) == []


def test_a_mask_head_without_masks(config):
    heads = {'model.roi_head.mask_head.num_classes': 2}
    cfg = config(heads, base=MASK_RCNN)
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    (finding,) = found(cfg)
    assert finding.problem == (
        'the model predicts masks and the pipeline does not load any'
    )


def test_masks_evaluated_without_masks(config, data):
    edit_json(
        data / 'val.json', lambda c: c['annotations'][0].pop('segmentation')
    )
    cfg = config({'val_evaluator.metric': ['bbox', 'segm']})
    (finding,) = found(cfg)
    assert finding.split == 'val_dataloader.dataset'
    assert '1 of 10 annotations have a box and no mask' in finding.problem


def test_a_region_proposal_network_has_one_class(config):
    cfg = Config.fromstring(
        "_base_ = 'mmdet::rpn/rpn_r50_fpn_1x_coco.py'", '.py'
    )
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    model = build_model(cfg.model)
    assert model.bbox_head.num_classes == 1
    splits = find_config_splits(config(), STAGES)
    assert list(check_heads(cfg, model, splits)) == []


def test_masks_may_be_learned_from_boxes(config):
    """As in BoxInst: a mask head alone does not need masks."""
    cfg = config()
    model = build_model(cfg.model)
    model.mask_head = torch.nn.Identity()
    assert model.with_mask
    splits = find_config_splits(cfg, STAGES)
    assert list(check_heads(cfg, model, splits)) == []


def test_coco_itself_fits_mmdet_s_class_names(config, shared):
    root = str(shared('data/coco_mini'))
    cfg = config({'model.roi_head.bbox_head.num_classes': 80})
    for stage in STAGES:
        dataset = cfg[f'{stage}_dataloader'].dataset
        dataset.pop('metainfo')
        dataset.update(
            data_root=root,
            ann_file=f'annotations/instances_{stage}.json',
            data_prefix={'img': stage},
        )
    cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val.json'
    assert [f.level for f in found(cfg)] == ['warning']  # rare classes


ORDERED, REVERSED = ('square', 'disc'), ('disc', 'square')


def test_mmdet_numbers_labels_by_the_file(config):
    """As the error message says, labels follow the order of the file."""
    labels = {}
    for classes in (ORDERED, REVERSED):
        dataset = config().train_dataloader.dataset
        built = DATASETS.build({**dataset, 'metainfo': {'classes': classes}})
        labels[classes] = [
            x['bbox_label']
            for i in range(len(built))
            for x in built.get_data_info(i)['instances']
        ]
        assert built.metainfo['classes'] == classes
    assert labels[ORDERED] == labels[REVERSED]
    assert set(labels[ORDERED]) == {0, 1}


def test_classes_in_another_order(config):
    where = 'train_dataloader.dataset'
    cfg = config({f'{where}.metainfo': {'classes': REVERSED}})
    (finding,) = found(cfg)
    assert (finding.level, finding.split) == ('error', where)
    assert "label 0 is 'square' there and 'disc' in metainfo" in (
        finding.problem
    )
    remedy = "metainfo=dict(classes=('square', 'disc'))"
    assert finding.remedy.startswith(remedy)


def test_a_single_class_without_a_comma(config):
    cfg = config({'val_dataloader.dataset.metainfo': {'classes': 'disc'}})
    with pytest.raises(UserError, match=r"string 'disc'.*\n.*\('disc',\)"):
        find_config_splits(cfg, STAGES)


def test_classes_of_a_file(config, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('square\ndisc\n')
    cfg = config({'val_dataloader.dataset.metainfo': {'classes': str(names)}})
    assert find_config_splits(cfg, STAGES)[1].classes == ORDERED


@pytest.mark.parametrize(
    ('change', 'level', 'says'),
    [
        (
            lambda c: c['images'].append({**c['images'][0], 'id': 77}),
            'error',
            '6 images, and the detector is run on the 5',
        ),
        (
            lambda c: c['categories'].reverse(),
            'error',
            'labels are numbered by their order',
        ),
        (
            lambda c: c['annotations'].pop(),
            'warning',
            'but other annotations',
        ),
    ],
    ids=['images', 'categories', 'annotations'],
)
def test_an_evaluator_with_another_file(config, data, change, level, says):
    other = Path(shutil.copy(data / 'val.json', data / 'other.json'))
    cfg = config({'val_evaluator.ann_file': str(other)})
    assert found(cfg) == []
    edit_json(other, change)
    (finding,) = found(cfg)
    assert finding.level == level
    assert says in finding.problem
    option = '--cfg-options val_evaluator.ann_file='
    assert finding.remedy.startswith(option)


def test_file_names_may_leave_the_prefix_but_not_the_root(config, data):
    def move(content: dict) -> None:
        for image in content['images']:
            image['file_name'] = f'../train/{image["file_name"]}'

    edit_json(data / 'train.json', move)
    assert found(config()) == []
    edit_json(
        data / 'train.json',
        lambda c: c['images'][0].update(file_name='../../secret.png'),
    )
    assert 'file names' in {f.check for f in found(config())}


def test_several_errors_are_reported_at_once(config, data):
    edit_json(data / 'train.json', lambda c: c['annotations'][0].pop('area'))
    (data / 'val/2.png').write_bytes(b'')
    with pytest.raises(UserError) as error:
        preflight.preflight(config(), STAGES)
    text = str(error.value)
    assert '2 things are wrong' in text
    assert '1. train_dataloader.dataset: 1 of 8 annotations' in text
    assert 'val/2.png (is empty)' in text
    assert 'mmext check-data' in text
    preflight.preflight(config(), STAGES, data=False)


def test_the_result_of_a_full_check_is_used_by_the_next_run(
    config, data, monkeypatch
):
    cfg = config()
    splits = find_config_splits(cfg, STAGES)
    keep(check_splits(splits, every_image=True))
    monkeypatch.setattr(preflight, 'check_splits', None)
    assert found(cfg) == []


def test_large_files_are_read_by_hotcoco(config, data, monkeypatch):
    monkeypatch.setattr(preflight, 'LARGE', 10)
    cfg = config()
    assert found(cfg) == []

    def damage(content: dict) -> None:
        a = content['annotations']
        a[1]['id'] = a[0]['id']
        a[2]['image_id'] = 99
        a[3]['bbox'] = [1, 1, 0, 5]
        content['categories'][1]['name'] = 'disk'

    edit_json(data / 'train.json', damage)
    assert {(f.level, f.check, f.count) for f in found(cfg)} == {
        ('error', 'ids', 1),
        ('error', 'unknown ids', 1),
        ('warning', 'boxes degenerate', 1),
        ('error', 'class names', 1),
    }
    (data / 'train.json').write_text('{"images": [{"id"')
    with pytest.raises(UserError, match='not a COCO annotation file'):
        found(cfg)


class TestHook:
    """With a runner that mmdet's tools build."""

    @pytest.fixture
    def runner(self, config) -> Runner:
        cfg = config(
            {
                'custom_hooks': [{'type': 'CheckDataHook'}],
                'train_dataloader.persistent_workers': False,
            }
        )
        cfg.visualizer.name = cfg.work_dir
        return Runner.from_cfg(cfg)

    def test_it_raises_before_the_first_iteration(self, runner, data):
        edit_json(
            data / 'train.json',
            lambda c: c['annotations'][0].update(image_id=99),
        )
        with pytest.raises(UserError, match='image_id'):
            runner.call_hook('before_train')

    def test_it_skips_data_that_the_tools_have_checked(self, runner):
        runner.model.roi_head.bbox_head.num_classes = 3
        hook = next(h for h in runner.hooks if isinstance(h, CheckDataHook))
        hook.checked = True
        runner.call_hook('before_train')
        hook.checked = False
        with pytest.raises(UserError, match='2 classes'):
            runner.call_hook('before_train')


def test_a_work_dir_that_cannot_be_created(tmp_path, monkeypatch):
    (tmp_path / 'taken').write_text('')
    for name in ('taken', 'taken/run/1'):
        with pytest.raises(UserError, match='taken is a file'):
            set_work_dir(Config({}), str(tmp_path / name))
    set_work_dir(Config({}), str(tmp_path / 'new/run'))
    monkeypatch.setattr(os, 'access', lambda path, how: path != tmp_path)
    with pytest.raises(UserError, match=f'made: {tmp_path} is not writable'):
        set_work_dir(Config({}), str(tmp_path / 'new/run'))
    assert [p.name for p in tmp_path.iterdir()] == ['taken']


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/my data/coco (2)/', '/my data/coco (2)/'),
        ("'a b.pth'", 'a b.pth'),
        ('[red cell, "white cell"]', ['red cell', 'white cell']),
        ('[(1, 2), (3 , a b)]', [(1, 2), (3, 'a b')]),
        (' 0.1 ', 0.1),
        ('1, 2', [1, 2]),
        ('None', None),
        ('True', True),
    ],
)
def test_an_option_keeps_spaces(text, value):
    parser = ArgumentParser()
    add_cfg_options(parser)
    args = parser.parse_args(['--cfg-options', f'a.b={text}', 'c=1'])
    assert parse_options(args.cfg_options) == {'a.b': value, 'c': 1}


def test_auto_scale_lr_of_none():
    with pytest.raises(UserError, match='does not say for which total batch'):
        set_auto_scale_lr(Config({'auto_scale_lr': None}))


def test_a_test_pipeline_unlike_that_of_validation(config):
    key = 'dataset.pipeline.1.scale'
    scale = {f'val_dataloader.{key}': (64, 48)}
    (finding,) = found(config(scale))
    assert finding.level == 'warning'
    assert f'test_dataloader.{key} is (128, 96)' in finding.problem
    assert f"'test_dataloader.{key}=(64, 48)'" in finding.remedy
    assert found(config(scale | {f'test_dataloader.{key}': (64, 48)})) == []
