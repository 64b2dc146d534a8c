# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext test` writes results of each image for mmseg and mmpretrain."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT
from forked import cpus, in_two_processes
from mmengine.registry import init_default_scope

from mmext.engine import launch
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.image_results import read_image_results
from mmext.evaluation.runs import read_run
from mmext.experiments import test_data as data
from mmext.experiments.records.recording import record_run
from mmext.models.build import build_model
from mmext.utils.config import load_config

IMAGES = 7
CONFIGS = {
    'mIoU': 'configs/segmentation/fpn_starnet-s050_600i_shapes.py',
    'top1': 'configs/classification/starnet-s050_5e_imagefolder.py',
}
OPTIONS = {
    'mIoU': [
        f'{split}_dataloader.dataset.{option}'
        for split in ('train', 'val', 'test')
        for option in ('num_train=1', f'num_val={IMAGES}', 'size=(160,160)')
    ]
    + ['model.data_preprocessor.size=(160,160)'],
    'top1': ['test_dataloader.batch_size=2', 'test_evaluator.topk=(1,5)'],
}


@pytest.fixture(scope='module', params=['mIoU', 'top1'])
def tested(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A task and the folder of tests with one and with two processes."""
    task: str = request.param
    pytest.importorskip('mmseg' if task == 'mIoU' else 'mmpretrain')
    folder = tmp_path_factory.mktemp(task)
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        for split in ('train', 'val'):
            path = folder / f'data/crops/{split}/class{i % 5}/{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 255, (64, 64, 3), np.uint8)
            cv2.imwrite(str(path), picture)
    options = [
        *OPTIONS[task],
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]
    config, checkpoint = ROOT / CONFIGS[task], folder / 'epoch_1.pth'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMEXT_DATA', str(folder / 'data'))
        patch.setenv('MMEXT_CACHE', str(folder / 'cache'))
        cfg = load_config(config, options)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        state = build_model(cfg.model).state_dict()
        torch.save({'state_dict': state}, checkpoint)
        launch.test(cfg, checkpoint, work_dir=folder / 'one')

        def test(rank: int) -> None:
            cfg = load_config(config, options)
            two = folder / 'two'
            launch.test(cfg, checkpoint, work_dir=two, launcher='pytorch')

        in_two_processes(folder, test)
    return task, folder


@cpus
def test_several_processes_write_what_one_writes(
    tested: tuple[str, Path],
) -> None:
    task, folder = tested
    file = f'predictions/epoch_1.{task}.npz'
    (one, names), (two, others) = (
        read_image_results(folder / name / file) for name in ('one', 'two')
    )
    assert names == others and len({*names}) == IMAGES
    assert list(names) == sorted(names)
    keys = {'mIoU': ('pixels',), 'top1': ('label', 'predicted')}[task]
    for key in keys:
        np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
    logged = read_meta(folder / 'one' / file)['metrics']
    found, _ = one.weighted(np.ones((1, IMAGES), int))
    if task == 'mIoU':
        assert one.pixels[..., 2].sum() == IMAGES * 160 * 160
        expected = {key: logged[key] for key in ('mIoU', 'aAcc', 'mAcc')}
    else:
        assert one.predicted.shape == (IMAGES, 5)
        assert names[0] == 'class0/0.png'
        expected = {f'top-{k}': logged[f'accuracy/top{k}'] for k in (1, 5)}
    for key, value in expected.items():
        assert 100 * found[key][0] == pytest.approx(value, abs=0.006)


def test_the_folder_is_a_run(
    tested: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = tested
    monkeypatch.setenv('MMEXT_DATA', str(folder / 'data'))
    monkeypatch.setenv('MMEXT_CACHE', str(folder / 'cache'))
    run = read_run(folder / 'one')
    assert run.image_results[task].name == f'epoch_1.{task}.npz'
    assert run.predictions == {} and run.model['params'] > 0
    cfg = load_config(ROOT / CONFIGS[task], OPTIONS[task])
    known = data.test_data(cfg)
    assert (known.task, known.images) == (task, IMAGES)
    found = record_run(
        folder / 'one',
        task=task,
        data=known,
        side='StarNet',
        seed=1,
        config_sha256='c' * 64,
    )
    assert found.results.names == known.classes
    assert found.checkpoint == 'epoch_1.pth' and found.versions['torch']
    package = {'mIoU': 'mmseg', 'top1': 'mmpretrain'}[task]
    assert found.versions[package]
    assert str(folder) not in repr(found)
