# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks the pretended GPU: it raises where CUDA does, and only there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pretend_gpu import DEVICE, PretendTensor
from torch import Tensor

ON_GPU = torch.ones(3, device=DEVICE)
ON_CPU = torch.ones(3)
NUMBER = torch.tensor(2.0)
FIRST = torch.tensor([0])


def put_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    weight.grad = ON_CPU


REFUSED: dict[str, Callable] = {
    'sum': lambda: ON_GPU + ON_CPU,
    'in place': lambda: ON_GPU.clone().add_(ON_CPU),
    'in place on the CPU': lambda: NUMBER.clone().add_(ON_GPU[0]),
    'output': lambda: torch.add(ON_GPU, 1, out=torch.ones(3)),
    'concatenation': lambda: torch.cat([ON_GPU, ON_CPU]),
    'stack of numbers': lambda: torch.stack([ON_GPU[0], NUMBER]),
    'where': lambda: torch.where(ON_GPU > 0, ON_GPU, ON_CPU),
    'product': lambda: torch.ones(2, 3) @ ON_GPU,
    'convolution': lambda: torch.nn.functional.conv1d(
        ON_GPU[None, None], torch.ones(1, 1, 1)
    ),
    'gather': lambda: ON_GPU.gather(0, FIRST),
    'index of a CPU tensor': lambda: ON_CPU[FIRST.to(DEVICE)],
    'values for a mask': lambda: ON_GPU.clone().__setitem__(
        ON_GPU > 0, ON_CPU
    ),
    'equal': lambda: torch.equal(ON_GPU, ON_CPU),
    'gradient': put_gradient,
    'numpy': lambda: ON_GPU.numpy(),
    'array': lambda: np.asarray(ON_GPU),
}
ALLOWED: dict[str, Callable] = {
    'number': lambda: ON_GPU * NUMBER,
    'index on the CPU': lambda: ON_GPU[FIRST],
    'list as index': lambda: ON_GPU[[0, 1]],
    'copy into': lambda: ON_GPU.clone().copy_(ON_CPU),
    'fill by mask': lambda: ON_GPU.masked_fill(ON_GPU > 0, NUMBER),
    'new tensor': lambda: ON_GPU.new_tensor([1.0, 2]),
    'new zeros': lambda: ON_GPU.new_zeros(2, 2),
    'tensor': lambda: torch.tensor([1, 2], device=DEVICE),
    'from NumPy': lambda: torch.as_tensor(np.ones(2), device=DEVICE),
    'range': lambda: torch.arange(3, device=DEVICE),
    'range with a start': lambda: torch.arange(1, 9, 3, device=DEVICE),
    'random': lambda: torch.randn(2, device=DEVICE),
    'permutation': lambda: torch.randperm(3, device=DEVICE),
    'identity': lambda: torch.eye(3, device=DEVICE),
    'steps': lambda: torch.linspace(0, 1, 3, device=DEVICE),
    'module': lambda: torch.nn.Linear(3, 2).to(DEVICE)(ON_GPU),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[name]()


@pytest.mark.parametrize('name', ALLOWED)
def test_allowed(name: str) -> None:
    found = ALLOWED[name]()
    assert isinstance(found, PretendTensor)
    assert found.shape == found.held.shape


def test_read() -> None:
    assert isinstance(ON_GPU.sum().item(), float)
    assert type((ON_GPU + 1).cpu()) is Tensor
    assert ON_GPU.tolist() == [1, 1, 1]
