# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from mmengine.utils import ManagerMixin

ROOT = Path(__file__).resolve().parents[1]

# The same examples on each machine, also on a slow one.
settings.register_profile(
    'mmext',
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile('mmext')

if 'PYTEST_XDIST_WORKER' in os.environ:
    # There is one worker per core, so more threads would only wait.
    torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'

# The first backward pass decides how many devices PyTorch's autograd has
# threads for. A test of export leaves a pretended GPU behind: if it came
# first, forked processes could not compute gradients.
torch.ones(1, requires_grad=True).sum().backward()


def pytest_configure() -> None:
    """Refuses equal file names, which pytest would report after all tests."""
    names = Counter(path.name for path in ROOT.glob('tests/**/test_*.py'))
    equal = sorted(name for name, count in names.items() if count > 1)
    if equal:
        raise pytest.UsageError(f'rename one of the files {", ".join(equal)}')


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Makes random numbers independent of the tests that ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Removes loggers, message hubs, visualizers and scopes of other tests.

    MMEngine keeps them by the name of a run, which consists of the config's
    name and the second, so two runs in one second would share a log file.
    This runs before all fixtures, because those of a module can train.
    """
    for kind in _with_subclasses(ManagerMixin):
        kind._instance_dict.clear()


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for one in kind.__subclasses__():
        yield from _with_subclasses(one)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Finds a reference file in ../shared, or skips the test."""

    def find(name: str) -> Path:
        path = ROOT.parent / 'shared' / name
        if not path.exists():
            pytest.skip(f'reference data ../shared/{name} is missing')
        return path

    return find


@pytest.fixture
def golden(shared: Callable[[str], Path]) -> dict:
    """Outputs of the official implementations of the papers."""
    return json.loads(shared('golden/backbones.json').read_text())
