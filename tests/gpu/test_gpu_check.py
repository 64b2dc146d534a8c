# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``make gpu-check`` without a GPU says what it skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_nothing_passes(tmp_path: Path) -> None:
    out = tmp_path / 'report.md'
    paths = filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks/gpu_check.py', '--out', out],
        env={
            **os.environ,
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHONPATH': os.pathsep.join(paths),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    report = out.read_text()
    assert 'no GPU' in report
    for check in (
        'ops against the CPU',
        'ops against golden files',
        'Triton kernels',
        'backbones',
        'detectors',
        'NCCL',
        'speed of ops',
    ):
        assert f'{check}: skipped' in done.stdout
        assert f'## {check}: skipped\n\n```\nPyTorch finds no GPU' in report
    assert str(Path.home()) not in report
