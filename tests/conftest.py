# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

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


def golden_fill(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that the golden outputs were made with, in float64.

    Args:
        state: A state dict under the *reference* key names; only shapes and
            names are read.
    """
    filled = {}
    for key, old in state.items():
        if key.endswith('num_batches_tracked'):
            filled[key] = old
            continue
        n = old.numel()
        phase = zlib.crc32(key.encode()) % 1000
        v = torch.sin(0.7 * torch.arange(n, dtype=torch.float64) + phase)
        v = v.reshape(old.shape)
        if key.endswith('running_var'):
            v = 1 + 0.25 * v
        elif key.endswith('running_mean'):
            v = 0.1 * v
        elif old.dim() == 1:
            v = 1 + 0.1 * v if key.endswith('weight') else 0.05 * v
        elif old.dim() > 1:
            v = v / (n / old.shape[0]) ** 0.5
        filled[key] = v
    return filled


def golden_input(shape: list[int]) -> torch.Tensor:
    """The input that the golden outputs were made with, in float64."""
    n = torch.Size(shape).numel()
    return torch.cos(0.05 * torch.arange(n, dtype=torch.float64)).reshape(
        shape
    )


def assert_golden(out: torch.Tensor, ref: dict, tol: float = 1e-9) -> None:
    """Shape, moments and first values of ``out`` against a golden entry."""
    assert list(out.shape) == ref['shape']
    got = [out.mean(), out.std(unbiased=False), out.abs().max()]
    want = [ref['mean'], ref['std'], ref['absmax']]
    got += out.flatten()[:8].tolist()
    want += ref['first8']
    torch.testing.assert_close(
        torch.tensor([float(g) for g in got], dtype=torch.float64),
        torch.tensor(want, dtype=torch.float64),
        rtol=tol,
        atol=tol,
    )
