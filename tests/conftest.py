# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from mmengine.utils import ManagerMixin

ROOT = Path(__file__).resolve().parents[1]

# The same examples everywhere, on slow machines too.
settings.register_profile(
    'mmext',
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile('mmext')

if 'PYTEST_XDIST_WORKER' in os.environ:
    # One worker a core: more threads would only wait for each other.
    torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same numbers whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """No logger, message hub, visualizer or scope of an earlier test.

    MMEngine keeps them by name, and a run's name is its config's and the
    second: two runs in one second would share a log file. Before all
    fixtures, since those of a module train, too.
    """
    for kind in _with_subclasses(ManagerMixin):
        kind._instance_dict.clear()


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for one in kind.__subclasses__():
        yield from _with_subclasses(one)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Path of a reference file beside the checkout; skips without it."""

    def find(name: str) -> Path:
        path = ROOT.parent / 'shared' / name
        if not path.exists():
            pytest.skip(f'reference data ../shared/{name} is not here')
        return path

    return find


@pytest.fixture
def golden(shared: Callable[[str], Path]) -> dict:
    """Outputs of the papers' reference implementations."""
    return json.loads(shared('golden/backbones.json').read_text())
