# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The project on a pretended GPU: no tensor is left on the CPU.

See ``pretend_gpu.py`` for what this shows and what it does not. Each test
runs a process, because the device cannot be removed from one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv._ext

HERE = Path(__file__).parent
# Answered from versions, not computed.
INFO = {'get_compiler_version', 'get_compiling_cuda_version'}
pytestmark = pytest.mark.skipif(
    not hasattr(mmcv._ext, '__path__'), reason='mmcv is compiled'
)


def run(*command: object) -> None:
    # With the repository, in case mmext is not installed from it.
    paths = [HERE.parents[1], HERE.parent / 'helpers', HERE]
    paths += filter(None, [os.environ.get('PYTHONPATH')])
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_it_refuses_what_a_gpu_refuses() -> None:
    run(HERE / 'pretend_gpu_refuses.py')


def test_ops_equal_the_golden_files(shared: Callable[[str], Path]) -> None:
    shared('golden/ops/nms.npz')
    run(
        *('-m', 'pytest', '-q', '-p', 'no:xdist', '-p', 'no:cacheprovider'),
        *('-p', 'pretend_gpu', '--device', 'pretend'),
        HERE.parent / 'mmcv_ext/test_golden.py',
    )


def results(kind: str, folder: Path) -> dict:
    out = folder / 'results.json'
    run(HERE / 'on_pretend_gpu.py', kind, out)
    content = json.loads(out.read_text())
    different = {k: v for k, v in content['results'].items() if v != 'equal'}
    assert not different, '\n'.join(f'{k}: {v}' for k, v in different.items())
    return content


def test_parts_equal_the_cpu(tmp_path: Path) -> None:
    """Ops, layers, regularizers, backbones; with gradients and a step."""
    content = results('parts', tmp_path)
    assert len(content['results']) > 65
    missing = set(mmcv._ext.__all__) - INFO - set(content['called'])
    assert not missing, f'never ran: {missing}'


def test_detectors_equal_the_cpu(tmp_path: Path) -> None:
    """Loss, backward pass, optimizer step and prediction of three."""
    content = results('detectors', tmp_path)
    assert len(content['results']) == 3
    assert 'roi_align_backward' in content['called']
