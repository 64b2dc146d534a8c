# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The project on a pretended GPU: no tensor is left on the CPU.

See ``pretend_gpu.py`` for what this shows and what it does not. Each test
runs pytest in a process, because the device cannot be removed from one.
"""

from __future__ import annotations

import os

import pytest
from commands import ROOT, run_python

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv._ext

pytestmark = pytest.mark.skipif(
    not hasattr(mmcv._ext, '__path__'), reason='mmcv is compiled'
)


@pytest.mark.parametrize(
    'arguments',
    [
        ['gpu/pretend_gpu_refuses.py'],
        ['gpu/on_pretend_gpu.py'],
        ['mmcv_ext/test_golden.py', '--device', 'pretend'],
    ],
    ids=['refuses', 'equals the CPU', 'golden files'],
)
def test_on_a_pretended_gpu(arguments: list[str]) -> None:
    options = ['-p', 'no:xdist', '-p', 'no:cacheprovider', '-p', 'pretend_gpu']
    paths = [ROOT, ROOT / 'tests/gpu', ROOT / 'tests/mmcv_ext']
    done = run_python(
        *('-m', 'pytest', *options, *arguments),
        environ={'PYTHONPATH': os.pathsep.join(map(str, paths))},
        cwd=ROOT / 'tests',
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
