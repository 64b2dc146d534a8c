# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import make_coco
from trained import train


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few drawn images; do not change it."""
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture(scope='session')
def with_val_loss(
    tmp_path_factory: pytest.TempPathFactory, data: Path
) -> Path:
    """The work dir of two epochs with ``ValLossHook``."""
    folder = tmp_path_factory.mktemp('run')
    hook = "custom_hooks = [dict(type='ValLossHook')]"
    best = "default_hooks.update(checkpoint=dict(save_best='val_loss'))"
    train(folder, data, more=f'{hook}\n{best}')
    return folder / 'work'
