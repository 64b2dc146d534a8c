# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures of the tools' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import make_coco


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few drawn images; do not change it."""
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')
