# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``make gpu-check`` without a GPU says what it skipped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from commands import ROOT, run_python


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'benchmarks'), *sys.path])
    return import_module('gpu_check')


def test_without_a_gpu_nothing_passes(
    script: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / 'report.md'
    done = run_python(script.__file__, '--out', out)
    assert done.returncode == 2, done.stderr[-2000:]
    report = out.read_text()
    assert 'no GPU' in report
    assert len(script.CHECKS) == 9
    for check in script.CHECKS:
        assert f'{check}: skipped' in done.stdout
        assert f'## {check}: skipped\n\n```\nPyTorch finds no GPU' in report
    assert str(Path.home()) not in report


def test_golden_files_are_counted(
    script: ModuleType,
    shared: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here on the CPU."""
    shared('golden/ops/nms.npz')
    process = script.process

    def on_cpu(*command: str, **options: float) -> str:
        given = ['cpu' if c == 'cuda' else c for c in command]
        return process(*given, **options)

    monkeypatch.setattr(script, 'process', on_cpu)
    (line,) = script.check_ops_against_golden_files()
    assert int(line.split()[0]) > 100
