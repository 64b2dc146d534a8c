# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The files of a test belong to it alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

from mmext.engine.launch import _keeping_config
from mmext.engine.predictions_hook import describe, free_name, settings_of
from mmext.engine.tta import set_tta
from mmext.utils.config import resize_scales

SETTINGS = {
    'tta': False,
    'scale': [[128, 96]],
    'score_thr': 0.05,
    'max_per_img': 100,
}


def name(folder: Path, **changes: Any) -> str:
    """Name of a test, whose meta file is written."""
    content = {
        'checkpoint': str(folder / 'run/epoch_1.pth'),
        'annotation_file': str(folder / 'val.json'),
        'test': SETTINGS,
        **changes,
    }
    found = free_name(folder, content)
    (folder / f'{found}.meta.json').write_text(json.dumps(content))
    return found


def test_names_carry_what_was_tested(tmp_path: Path) -> None:
    def setting(**values: Any) -> dict:
        return {'test': {**SETTINGS, **values}}

    tests: dict[str, dict] = {
        'epoch_1': {},
        'epoch_2': {'checkpoint': str(tmp_path / 'run/epoch_2.pth')},
        'epoch_1-tta': setting(tta=True),
        'epoch_1-test': {'annotation_file': str(tmp_path / 'test.json')},
        'epoch_1-other': {'checkpoint': str(tmp_path / 'other/epoch_1.pth')},
        'epoch_1-scale-64x48': setting(scale=[[64, 48]]),
        'epoch_1-score_thr-0.3': setting(score_thr=0.3),
    }
    for _ in range(2):  # the same test replaces its own files
        for expected, changes in tests.items():
            assert name(tmp_path, **changes) == expected


def test_files_of_earlier_versions_are_replaced(tmp_path: Path) -> None:
    content = {'checkpoint': str(tmp_path / 'run/epoch_1.pth')}
    (tmp_path / 'epoch_1.meta.json').write_text(json.dumps(content))
    assert name(tmp_path) == 'epoch_1'


@pytest.mark.parametrize('wrapped', [True, False])
def test_each_metric_has_its_annotations(
    tmp_path: Path, wrapped: bool
) -> None:
    """A regression: all had those of the last one, or none."""
    files = [tmp_path / 'a.json', tmp_path / 'b.json']
    for file in files:
        file.write_text('{}')
    evaluator: Any = [{'ann_file': str(file)} for file in files]
    if wrapped:
        evaluator = {'type': 'MultiDatasetsEvaluator', 'metrics': evaluator}
    metrics = [SimpleNamespace(dataset_meta={}, place=f) for f in files]
    runner = SimpleNamespace(
        cfg=config(test_evaluator=evaluator),
        test_dataloader=SimpleNamespace(dataset=None),
        test_evaluator=SimpleNamespace(metrics=metrics),
        experiment_name='run_1',
        timestamp='1',
        _load_from=None,
    )
    found = [describe(runner, metric, {}, None) for metric in metrics]
    assert [x['annotation_file'] for x in found] == [*map(str, files)]


PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'Resize', 'scale': (128, 96), 'keep_ratio': True},
    {'type': 'PackDetInputs', 'meta_keys': ('img_id',)},
]


def config(**more: Any) -> Config:
    dataset = {'type': 'CocoDataset', 'pipeline': PIPELINE}
    model = {
        'type': 'FasterRCNN',
        'test_cfg': {
            'rpn': {'max_per_img': 1000},
            'rcnn': {'score_thr': 0.05, 'max_per_img': 100},
        },
    }
    loader = {'dataset': {'type': 'RepeatDataset', 'dataset': dataset}}
    return Config({'model': model, 'test_dataloader': loader, **more})


def test_settings_of_a_test() -> None:
    cfg = config()
    assert settings_of(cfg) == SETTINGS
    set_tta(cfg)
    assert settings_of(cfg) == {**SETTINGS, 'tta': True}
    cfg = config(model={'type': 'DETR', 'test_cfg': {'max_per_img': 300}})
    expected = {**SETTINGS, 'score_thr': None, 'max_per_img': 300}
    assert settings_of(cfg) == expected


def tta_pipeline(*scales: tuple[int, int]) -> list[dict]:
    resize = [{'type': 'Resize', 'scale': scale} for scale in scales]
    steps = [resize, [{'type': 'RandomFlip', 'prob': 1.0}], [PIPELINE[-1]]]
    return [PIPELINE[0], {'type': 'TestTimeAug', 'transforms': steps}]


def test_inherited_tta_at_another_scale() -> None:
    """The pipeline of mmdet's bases is that of COCO's images."""
    pipeline = tta_pipeline((1333, 800), (666, 400))
    text = set_tta(config(tta_pipeline=pipeline))
    assert 'to 1333x800, 666x400, and the test pipeline to 128x96' in text
    pipeline = tta_pipeline((1333, 800), (128, 96))
    assert set_tta(config(tta_pipeline=pipeline)) == ''
    assert set_tta(config(tta_pipeline=None)) == ''


def test_scales_of_a_pipeline() -> None:
    pipeline = [
        {'type': 'mmdet.Resize', 'scale': (64, 32)},
        {'type': 'RandomChoiceResize', 'scales': [(8, 4), (64, 32)]},
        {'type': 'Resize', 'scale_factor': 0.5},
    ]
    assert resize_scales({'pipeline': pipeline}) == [[64, 32], [8, 4], 0.5]
    assert resize_scales(None) == []


@pytest.mark.parametrize('trained', [True, False])
def test_a_test_keeps_the_config_of_a_training(
    tmp_path: Path, trained: bool
) -> None:
    file, other = tmp_path / 'det.py', tmp_path / 'other.py'
    if trained:
        (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
        file.write_text('model = 1\n')
    plain = Config({'model': 3})
    plain.work_dir, plain.launcher = str(tmp_path), 'none'
    with _keeping_config(plain):  # what the runner of a test writes
        file.write_text('model = 2\n')
        if trained:
            other.write_text('model = 2\n')
    assert f'model = {1 if trained else 3}\n' in file.read_text()
    assert [p.name for p in tmp_path.glob('*.py')] == ['det.py']
