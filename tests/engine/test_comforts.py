# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Curves, the final table, the validation loss and the one-line comforts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import init_default_scope
from tiny_run import make_coco, write_config
from toy import Numbers, build_runner

from mmext.checkpoints.read import load
from mmext.engine.curves_hook import summary
from mmext.engine.runner import ReliableRunner
from mmext.engine.val_loss_hook import for_losses
from mmext.errors import UserError
from mmext.utils.config import load_config
from mmext.utils.random_state import seed_everything


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')


def train(folder: Path, data: Path, epochs: int = 2, more: str = '', **cfg):
    folder.mkdir(exist_ok=True, parents=True)
    config = Config.fromfile(
        write_config(folder / 'tiny.py', data, epochs, more=more)
    )
    config.work_dir = str(folder / 'work')
    config.merge_from_dict(cfg)
    runner = ReliableRunner.from_cfg(config)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def comfortable(tmp_path_factory, data) -> Path:
    """Two epochs with the validation loss."""
    folder = tmp_path_factory.mktemp('run')
    hook = "custom_hooks = [dict(type='ValLossHook')]"
    best = "default_hooks.update(checkpoint=dict(save_best='val_loss'))"
    train(folder, data, more=f'{hook}\n{best}')
    return folder / 'work'


def records(work: Path) -> list[dict]:
    (file,) = work.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_run_draws_its_curves(comfortable):
    curves = comfortable / 'curves'
    (table,) = curves.glob('*.csv')
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    logged = [r for r in records(comfortable) if 'loss' in r]
    drawn = [float(r['value']) for r in rows if r['key'] == 'loss']
    assert drawn == [r['loss'] for r in logged] and len(drawn) == 4
    names = {p.name for p in curves.glob('*.png')}
    assert names == {
        'loss.png',
        'lr.png',
        'val_loss.png',
        'coco_bbox_mAP.png',
    }
    for name in names:
        assert cv2.imread(str(curves / name)).std() > 1


def test_the_log_ends_with_a_table_and_the_best_epoch(comfortable):
    log = next(comfortable.glob('*/*.log')).read_text()
    table = log[log.rindex('Best: epoch') :]
    validated = [r for r in records(comfortable) if 'coco/bbox_mAP' in r]
    best = max(validated, key=lambda r: r['coco/bbox_mAP'])
    assert table.startswith(f'Best: epoch {best["step"]}\n')
    row = next(x for x in table.split('\n') if ' *' in x).split('|')
    assert row[0].split()[0] == str(best['step'])
    assert float(row[1]) == pytest.approx(
        100 * best['coco/bbox_mAP'], abs=0.051
    )
    assert float(row[4]) == pytest.approx(best['val_loss'], abs=1e-4)
    assert 'save_best kept' in table and 'best_val_loss_epoch_' in table


class Scripted(BaseMetric):
    """A classifier's and a segmenter's figures, epoch by epoch."""

    default_prefix = 'script'
    values = ((1.0, 40.0), (3.0, 70.0), (2.0, 60.5))

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.epoch = getattr(self, 'epoch', -1) + 1
        accuracy, iou = self.values[self.epoch]
        return {'aAcc': accuracy, 'mIoU': iou}


def test_other_metrics_than_cocos(tmp_path):
    """Classification and segmentation get curves and a table too."""
    loader = {
        'batch_size': 2,
        'num_workers': 0,
        'dataset': Numbers(2),
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'collate_fn': {'type': 'pseudo_collate'},
    }
    runner = build_runner(
        tmp_path / 'work',
        epochs=3,
        log_level='INFO',
        val_dataloader=loader,
        val_cfg={'type': 'ValLoop'},
        val_evaluator=[Scripted()],
    )
    runner.train()
    names = {p.name for p in (tmp_path / 'work/curves').glob('*.png')}
    assert {'script_aAcc.png', 'script_mIoU.png'} <= names
    lines = summary(runner).split('\n')
    assert lines[0] == 'Best: epoch 2'
    assert [c.strip() for c in lines[1].split('|')] == [
        'epoch',
        'script/mIoU',
        'script/aAcc',
    ]
    assert [c.strip() for c in lines[4].split('|')] == ['2 *', '70', '3']
    assert [c.strip() for c in lines[5].split('|')] == ['3', '60.5', '2']


def test_the_validation_loss_is_the_training_loss_there(comfortable, data):
    """By hand: boxes resized with the images, nothing flipped."""
    cfg = Config.fromfile(comfortable / 'tiny.py')
    init_default_scope('mmdet')
    cfg.work_dir = str(comfortable.parent / 'again')
    model = ReliableRunner.from_cfg(cfg).model
    weights = load(comfortable / 'epoch_2.pth')['state_dict']
    model.load_state_dict(weights)
    loader = cfg.train_dataloader
    loader.batch_size = 1
    loader.sampler.shuffle = False
    loader.dataset.ann_file = 'val.json'
    loader.dataset.data_prefix.img = 'val'
    loader.dataset.filter_cfg = None
    loader.dataset.pipeline = [
        step for step in loader.dataset.pipeline if step.type != 'RandomFlip'
    ]
    model.eval()
    built = ReliableRunner.build_dataloader(loader)
    seed_everything(0)
    found = []
    with torch.no_grad():
        for batch in built:
            batch = model.data_preprocessor(batch, True)
            losses = model(**batch, mode='loss')
            found.append(float(model.parse_losses(losses)[0]))
    logged = [r for r in records(comfortable) if 'val_loss' in r][-1]
    assert len(found) == 5
    assert logged['val_loss'] == pytest.approx(sum(found) / 5, rel=1e-6)
    assert {'val_loss_cls', 'val_loss_rpn_bbox'} <= logged.keys()


def test_the_validation_loss_changes_nothing(comfortable, data, tmp_path):
    train(tmp_path, data)
    one = load(tmp_path / 'work' / 'epoch_2.pth')['state_dict']
    other = load(comfortable / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_annotations_come_before_the_image_is_resized(data, tmp_path):
    cfg = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
    steps = [s.type for s in for_losses(cfg.val_dataloader).dataset.pipeline]
    assert steps[:3] == ['LoadImageFromFile', 'LoadAnnotations', 'Resize']
    assert cfg.val_dataloader.dataset.test_mode
    cfg.val_dataloader.dataset.pipeline.pop(2)
    with pytest.raises(UserError, match='loads no annotations'):
        for_losses(cfg.val_dataloader)


def test_the_comforts_are_one_option_each(data, tmp_path):
    """As docs/training.md gives them."""
    option = {
        '+default_hooks.ema.type': 'EMAHook',
        '+default_hooks.val_loss.type': 'ValLossHook',
        '+default_hooks.early_stopping.type': 'EarlyStoppingHook',
        '+default_hooks.early_stopping.monitor': 'val_loss',
        '+default_hooks.early_stopping.min_delta': 9,
        '+default_hooks.early_stopping.patience': 1,
        '+optim_wrapper.accumulative_counts': 2,
        '+optim_wrapper.clip_grad.max_norm': 10,
    }
    file = write_config(tmp_path / 'tiny.py', data, epochs=5)
    cfg = load_config(file, option)
    cfg.work_dir = str(tmp_path / 'work')
    runner = ReliableRunner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2  # the loss did not fall by 9
    saved = load(tmp_path / 'work' / 'epoch_2.pth')
    assert 'ema_state_dict' in saved
    # Two batches an epoch, one step of AdamW.
    steps = {int(s['step']) for s in saved['optimizer']['state'].values()}
    assert steps == {2}
    assert 'grad_norm' in records(tmp_path / 'work')[1]


@pytest.mark.parametrize(
    ('preset', 'files'),
    [
        ('tensorboard', '*/vis_data/events.out.tfevents.*'),
        ('wandb', '*/vis_data/wandb/offline-run-*/*.wandb'),
    ],
)
def test_presets_of_other_loggers(data, tmp_path, preset, files, monkeypatch):
    pytest.importorskip(preset)
    monkeypatch.setenv('WANDB_MODE', 'offline')
    base = Path(__file__).resolve().parents[2] / 'configs' / '_base_'
    runtime = base / 'runtime' / f'{preset}.py'
    leaf = tmp_path / 'leaf.py'
    schedule = base / 'schedules' / 'custom.py'
    leaf.write_text(f'_base_ = [{str(runtime)!r}, {str(schedule)!r}]\n')
    cfg = Config.fromfile(leaf)
    assert cfg.runner_type == 'ReliableRunner'
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'
    train(tmp_path, data, epochs=1, visualizer=cfg.visualizer)
    work = tmp_path / 'work'
    assert any(f.stat().st_size for f in work.glob(files))
    assert records(work)  # and our own files, which compare reads
