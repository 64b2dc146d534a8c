# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``--auto-scale-lr``: the rate that training starts from, and the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import make_coco, write_config

from mmext.engine.launch import build_runner, set_auto_scale_lr
from mmext.utils.config import load_config


@pytest.mark.parametrize(
    'accumulated, lr, says',
    [
        (1, 1e-3 / 8, '1 process x 2 images = 2'),
        (4, 1e-3 / 2, '1 process x 2 images x 4 accumulated = 8'),
    ],
)
def test_rate_and_arithmetic(tmp_path, accumulated, lr, says):
    config = write_config(tmp_path / 'tiny.py', make_coco(tmp_path / 'coco'))
    cfg = load_config(
        config, {'+optim_wrapper.accumulative_counts': accumulated}
    )
    cfg.work_dir = str(tmp_path / 'work')
    set_auto_scale_lr(cfg)
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.scale_lr(wrapper, cfg.auto_scale_lr)
    rates = [group['lr'] for group in wrapper.optimizer.param_groups]
    assert rates == pytest.approx([lr] * len(rates))
    (log,) = Path(cfg.work_dir).rglob('*.log')
    assert f'{says}: lr 0.001 x' in log.read_text()
