# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The training loss on the validation images."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_run import write_config
from trained import records, train

from mmext.checkpoints.load import load
from mmext.engine.runner import ReliableRunner
from mmext.engine.val_loss_hook import for_losses
from mmext.errors import UserError
from mmext.utils.random_state import seed_everything


def test_the_loss_equals_one_without_the_hook(with_val_loss):
    """Boxes are resized with the images, and no image is flipped."""
    cfg = Config.fromfile(with_val_loss / 'tiny.py')
    init_default_scope('mmdet')
    cfg.work_dir = str(with_val_loss.parent / 'again')
    model = ReliableRunner.from_cfg(cfg).model
    weights = load(with_val_loss / 'epoch_2.pth')['state_dict']
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
    logged = [r for r in records(with_val_loss) if 'val_loss' in r][-1]
    assert len(found) == 5
    assert logged['val_loss'] == pytest.approx(sum(found) / 5, rel=1e-6)
    assert {'val_loss_cls', 'val_loss_rpn_bbox'} <= logged.keys()


def test_the_hook_changes_no_weights(with_val_loss, data, tmp_path):
    train(tmp_path, data)
    one = load(tmp_path / 'work' / 'epoch_2.pth')['state_dict']
    other = load(with_val_loss / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_annotations_are_loaded_before_the_image_is_resized(data, tmp_path):
    cfg = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
    steps = [s.type for s in for_losses(cfg.val_dataloader).dataset.pipeline]
    assert steps[:3] == ['LoadImageFromFile', 'LoadAnnotations', 'Resize']
    assert cfg.val_dataloader.dataset.test_mode
    cfg.val_dataloader.dataset.pipeline.pop(2)
    with pytest.raises(UserError, match='loads no annotations'):
        for_losses(cfg.val_dataloader)
