# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of evaluators and of the loaders that they evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_run import make_coco, write_config

from mmext.checks.config import find_config_splits
from mmext.checks.evaluators import check_evaluators, require_metric_options
from mmext.checks.findings import ERROR, WARNING, Finding
from mmext.errors import UserError
from mmext.utils.config import parse_options

STAGES = ('val', 'test')


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Reads a config of a tiny detector, with options."""
    data = make_coco(tmp_path / 'data')

    def read(**options: Any) -> Config:
        cfg = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
        cfg.merge_from_dict(
            {key.replace('__', '.'): v for key, v in options.items()}
        )
        init_default_scope('mmdet')
        return cfg

    return read


def found(cfg: Config) -> list[Finding]:
    return [*check_evaluators(cfg, find_config_splits(cfg, STAGES))]


def change(file: Path, edit: Callable[[dict], object]) -> Path:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def concatenate(cfg: Config, *changes: dict) -> Config:
    """Tests the data set of the config and copies with changes."""
    one = cfg.test_dataloader.dataset
    datasets = [one, *({**one, **c} for c in changes)]
    cfg.test_dataloader = {
        'batch_size': 1,
        'dataset': {'type': 'ConcatDataset', 'datasets': datasets},
    }
    return cfg


def test_a_good_config(config) -> None:
    assert found(config()) == []


# --- several data sets, one metric


def test_two_test_sets_with_the_same_ids(config, tmp_path: Path) -> None:
    other = make_coco(tmp_path / 'other', val=7)
    cfg = concatenate(config(), {'data_root': str(other)})
    [error] = found(cfg)
    assert error.level == ERROR and error.split.endswith('datasets.1')
    assert '5 image ids' in error.problem and '(1, 2, 3' in error.problem
    # Without a file, the metric collects the objects, by the same ids.
    cfg.test_evaluator.ann_file = None
    assert len(found(cfg)) == 1
    cfg.test_evaluator = {
        'type': 'MultiDatasetsEvaluator',
        'metrics': [cfg.test_evaluator] * 2,
        'dataset_prefixes': ['a', 'b'],
    }
    assert found(cfg) == []
    cfg.test_evaluator.metrics[0].iou_thrs = [0.5]
    with pytest.raises(UserError, match='metrics.0.iou_thrs'):
        found(cfg)


def test_a_metric_for_each_of_two_test_sets(config, tmp_path: Path) -> None:
    """A regression: their files were not compared with the data sets."""
    other = make_coco(tmp_path / 'other', val=7)
    cfg = concatenate(config(), {'data_root': str(other)})
    metric, files = cfg.test_evaluator, [cfg.test_evaluator.ann_file]
    files.append(str(other / 'val.json'))

    def each(files: list[str]) -> list[Finding]:
        metrics = [{**metric, 'ann_file': file} for file in files]
        cfg.test_evaluator = {
            'type': 'MultiDatasetsEvaluator',
            'metrics': metrics,
            'dataset_prefixes': ['a', 'b', 'c'][: len(files)],
        }
        return found(cfg)

    assert each(files) == []
    one, two = each(files[::-1])
    assert '2 would count as images without detections' in one.problem
    assert 'metrics.1.ann_file' in two.remedy
    assert 'mmdet fails at detections on the others' in two.problem
    [error] = each(files + files[:1])
    assert 'has 3 metrics for 2 data sets' in error.problem
    with pytest.raises(UserError, match=r'metrics\.1\.ann_file: file'):
        each([files[0], f'{other}/gone.json'])


def test_other_images_under_the_same_ids(config, tmp_path: Path) -> None:
    """A regression: they were called the same images."""
    cfg = config()
    other = make_coco(tmp_path / 'other') / 'val.json'
    change(other, lambda c: c['images'][2].update(file_name='fold2/x.png'))
    cfg.test_evaluator = [dict(cfg.test_evaluator), dict(cfg.test_evaluator)]
    cfg.test_evaluator[1].ann_file = str(other)
    [error] = found(cfg)
    assert error.level == ERROR and 'is x in one and' in error.problem
    assert 'test_evaluator.1.ann_file=' in error.remedy


def renumbered(content: dict) -> None:
    for image in content['images']:
        image['id'] += 100
    for annotation in content['annotations']:
        annotation['image_id'] += 100


def test_an_evaluator_of_one_of_two_test_sets(config, tmp_path: Path) -> None:
    other = make_coco(tmp_path / 'other')
    change(other / 'val.json', renumbered)
    cfg = concatenate(config(), {'data_root': str(other)})
    [error] = found(cfg)
    assert error.level == ERROR and 'differ in 5 images' in error.problem
    # One file with all images is what it needs.
    contents = [
        json.loads(file.read_text())
        for file in (Path(cfg.test_evaluator.ann_file), other / 'val.json')
    ]
    for key in ('images', 'annotations'):
        contents[0][key] += contents[1][key]
    both = contents[0]
    for i, annotation in enumerate(both['annotations'], 1):
        annotation['id'] = i
    (tmp_path / 'both.json').write_text(json.dumps(both))
    cfg.test_evaluator.ann_file = str(tmp_path / 'both.json')
    assert found(cfg) == []
    change(other / 'val.json', lambda c: c['categories'].reverse())
    [error] = found(cfg)
    assert 'labels are numbered by their order' in error.problem


# --- images that are not tested, or several times


@pytest.mark.parametrize(
    'indices, tested', [(2, 2), (-3, 3), ([0, 4, -1], 2), (9, 5), (None, 5)]
)
@pytest.mark.parametrize('stage', STAGES)
def test_indices(config, stage: str, indices: Any, tested: int) -> None:
    cfg = config()
    cfg[f'{stage}_dataloader'].dataset.indices = indices
    warnings = found(cfg)
    assert bool(warnings) == (tested < 5)
    for warning in warnings:
        assert warning.level == WARNING and warning.count == 5 - tested
        assert f'{tested} of 5 images are tested' in warning.problem
    cfg[f'{stage}_evaluator'].ann_file = None  # evaluates what is tested
    assert found(cfg) == []


def test_images_that_a_filter_leaves_out(config, tmp_path: Path) -> None:
    cfg = config()
    change(
        Path(cfg.test_evaluator.ann_file),
        lambda c: c.update(
            annotations=[a for a in c['annotations'] if a['image_id'] > 1]
        ),
    )
    dataset = cfg.test_dataloader.dataset
    dataset.test_mode = False
    dataset.filter_cfg = {'filter_empty_gt': True, 'min_size': 32}
    [warning] = found(cfg)
    assert '4 of 5 images' in warning.problem
    assert 'filter_cfg' in warning.problem
    dataset.test_mode = True  # mmdet ignores filter_cfg
    assert found(cfg) == []


@pytest.mark.parametrize(
    'key, value, tested',
    [('drop_last', True, 4), ('num_batch_per_epoch', 1, 2)],
)
def test_batches_that_are_left_out(
    config, key: str, value: object, tested: int
) -> None:
    cfg = config(test_dataloader__batch_size=2)
    cfg.test_dataloader[key] = value
    [warning] = found(cfg)
    assert f'{tested} of 5 images' in warning.problem and key in str(warning)


@pytest.mark.parametrize('kind', ['RepeatDataset', 'ClassBalancedDataset'])
def test_repeated_images(config, kind: str) -> None:
    cfg = config()
    inner = cfg.test_dataloader.pop('dataset')
    more = {'times': 2} if kind[0] == 'R' else {'oversample_thr': 0.1}
    cfg.test_dataloader.dataset = {'type': kind, 'dataset': inner, **more}
    [error] = found(cfg)
    assert error.level == ERROR and kind in error.problem


# --- options of the metric


@pytest.mark.parametrize(
    'option, text',
    [
        ('iou_thrs=[0.5]', 'iou_thrs is [0.5]'),
        ('iou_thrs=0.5', 'iou_thrs is 0.5'),
        ('iou_thrs=[0.5,0.75]', 'AP50 and AP75'),
        ('proposal_nums=[300]', 'three numbers'),
        ('proposal_nums=[1,10,500]', 'AP would be -1'),
        ('proposal_nums=[100,300]', 'three numbers'),
        ('proposal_nums=[100,300,-1]', 'three numbers'),
        ('proposal_nums=100', 'three numbers'),
        ('metric=box', "metric: 'box' is not known"),
        ('metric=[bbox,masks]', "metric: 'masks' is not known"),
        ('metric_items=[AP50]', "metric_items: 'AP50' is not known"),
        ('metric_items=mAP_50', 'the string'),
    ],
)
@pytest.mark.parametrize('kind', ['CocoMetric', 'FastCocoMetric'])
def test_options_that_fail_after_the_test(
    config, kind: str, option: str, text: str
) -> None:
    cfg = config(test_evaluator__type=kind)
    cfg.test_evaluator.update(parse_options([option]))
    with pytest.raises(UserError) as error:
        find_config_splits(cfg, STAGES)
    assert text in error.value.problem
    assert 'test_evaluator' in error.value.problem and error.value.fix
    find_config_splits(cfg, ('val',))  # the other stage is right


@pytest.mark.parametrize(
    'options',
    [
        {'proposal_nums': (1, 10, 100)},
        {'proposal_nums': [100, 300, 1000], 'metric': ['bbox', 'proposal']},
        {'metric': 'proposal_fast', 'iou_thrs': [0.5], 'proposal_nums': [9]},
        {'metric_items': ['mAP', 'mAP_50', 'AR@100']},
        {'iou_thrs': None},
        {'type': 'VOCMetric', 'iou_thrs': [0.5]},
    ],
)
def test_options_that_work(config, options: dict) -> None:
    cfg = config()
    require_metric_options(cfg, 'x', {**cfg.test_evaluator, **options})


@pytest.mark.parametrize(
    'options', [{'metric': 'proposal'}, {'metric_items': ['mAP', 'AR@300']}]
)
def test_recalls_under_the_names_of_others(config, options: dict) -> None:
    cfg = config()
    nums = {**cfg.test_evaluator, **options, 'proposal_nums': [1, 10, 100]}
    with pytest.raises(UserError, match='second number as AR@300'):
        require_metric_options(cfg, 'x', nums)
