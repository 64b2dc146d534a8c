# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every tool where MMDetection is not installed: one message, status 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The doctor needs nothing, dist_run.py torch alone.
TOOLS = [
    p
    for p in sorted((ROOT / 'tools').rglob('*.py'))
    if p.parent.name != 'dev' and p.stem not in ('doctor', 'dist_run')
]
# Modules that cannot be imported, as sitecustomize.py.
MISSING = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: (
    None if name in ('mmengine', 'mmdet') else find(name, *more)
)
"""


def run_without(
    tmp_path: Path, *command: str | Path, debug: str = '0'
) -> subprocess.CompletedProcess:
    (tmp_path / 'sitecustomize.py').write_text(MISSING)
    path = f'{tmp_path}{os.pathsep}{ROOT}'
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, 'PYTHONPATH': path, 'MMEXT_DEBUG': debug},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize('tool', TOOLS, ids=lambda p: p.stem)
def test_a_tool_says_what_to_install(tmp_path, tool):
    done = run_without(tmp_path, tool)
    assert done.stderr.splitlines()[:2] == [
        '',
        'error: mmext needs mmengine, mmdet, not found in this environment',
    ]
    assert f"pip install -e '{ROOT}[onedl]'" in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ['sitecustomize.py']


def test_a_script_may_catch_it(tmp_path):
    script = 'try: import mmext\nexcept ImportError: print("caught")\n1 / 0'
    done = run_without(tmp_path, '-c', script)
    assert done.stdout == 'caught\n'
    assert done.stderr.endswith('ZeroDivisionError: division by zero\n')
    done = run_without(tmp_path, '-c', 'import mmext', debug='1')
    assert 'Traceback' in done.stderr and 'mmext needs' in done.stderr
