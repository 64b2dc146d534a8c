# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Asserts that two trainings ended with the same state, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mmext.checkpoints.load import load


def assert_same(one: object, other: object, where: str = '') -> None:
    """Compares two values of a checkpoint with all that they contain."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f'{where}.{key}')
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f'{where}.{i}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), where
    else:
        assert one == other, where


def assert_same_end(one: Path, other: Path) -> None:
    """Compares two checkpoints without the log, the times and the paths."""
    one, other = load(one), load(other)
    assert one.keys() == other.keys()
    for part in one.keys() - {'meta', 'message_hub'}:
        assert_same(one[part], other[part], part)
    assert one['meta']['iter'] == other['meta']['iter']
