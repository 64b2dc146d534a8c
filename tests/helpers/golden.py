# Licensed under the Apache License, Version 2.0. See LICENSE.
"""How the golden outputs were made, and what it means to equal them."""

from __future__ import annotations

import zlib

import torch


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
    moments = [out.mean(), out.std(unbiased=False), out.abs().max()]
    got = torch.stack([*moments, *out.flatten()[:8]]).double()
    want = [ref['mean'], ref['std'], ref['absmax'], *ref['first8']]
    want = torch.tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)
