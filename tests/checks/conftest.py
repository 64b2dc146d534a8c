# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A small data set that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_run import make_coco


@pytest.fixture(scope='package')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / 'coco'))
