# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the tests against golden files on a GPU: ``--device cuda``."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--device', default='cpu', help='device of test_golden')


@pytest.fixture(autouse=True)
def _on_device(request: pytest.FixtureRequest) -> None:
    """Moves the fields of a case, the parameter ``c``, to the device."""
    device = request.config.getoption('--device', 'cpu')
    if device == 'cpu' or 'c' not in request.fixturenames:
        return
    torch.backends.cudnn.allow_tf32 = False
    case = request.getfixturevalue('c')
    for name, value in case.items():
        if isinstance(value, torch.Tensor):
            case[name] = value.to(device)
