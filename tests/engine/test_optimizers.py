# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The linear scaling rule and its message."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmext.engine.optimizers import lr_scaling


def config(**optim) -> Config:
    return Config(
        {
            'auto_scale_lr': {'enable': False, 'base_batch_size': 16},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.02}}
            | optim,
            'train_dataloader': {'batch_size': 4},
        }
    )


def test_the_message_shows_the_arithmetic():
    found = lr_scaling(config(), 1)
    assert found.lr == pytest.approx(0.005)
    assert found.text == (
        'lr 0.02 is meant for a total batch of 16 (8 GPUs x 2); this run has '
        '1 process x 4 images = 4: lr 0.02 x 4 / 16 = 0.005'
    )
    assert lr_scaling(config(), 4).factor == 1


def test_accumulated_batches_count():
    found = lr_scaling(config(accumulative_counts=3), 2)
    assert found.factor == 24 / 16 and found.lr == pytest.approx(0.03)
    assert '2 processes x 4 images x 3 accumulated = 24' in found.text


@pytest.mark.parametrize(
    'gone', ['auto_scale_lr', 'optim_wrapper', 'train_dataloader']
)
def test_none_if_a_value_is_not_known(gone):
    cfg = config()
    cfg.pop(gone)
    assert lr_scaling(cfg, 1) is None
