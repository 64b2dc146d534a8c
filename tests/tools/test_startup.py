# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``--help`` of each tool imports neither torch nor MMDetection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmext.cli import COMMANDS

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# dist_run.py is a launcher, and tools/dev is for developers.
SCRIPTS = sorted(
    path
    for path in TOOLS.rglob('*.py')
    if path.parent.name != 'dev' and path.stem != 'dist_run'
)
HEAVY = ('mmcv', 'mmdet', 'mmengine', 'torch')
# Prints the heavy modules after the help, at the end of the process.
RUN = f"""
import atexit, runpy, sys
atexit.register(
    lambda: print('loaded:', *(m for m in {HEAVY} if m in sys.modules))
)
"""


def run(code: str, *args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, '-c', RUN + code, *args],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert done.stdout.startswith('usage: ')
    return done.stdout


@pytest.mark.parametrize('tool', SCRIPTS, ids=lambda path: path.stem)
def test_help_of_a_tool(tool):
    code = (
        'sys.argv = sys.argv[1:]\n'
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    out = run(code, tool, '--help')
    assert out.startswith(f'usage: {tool.name} ')
    assert out.endswith('loaded:\n')


@pytest.mark.parametrize('command', [None, *COMMANDS])
def test_help_of_a_command(command):
    code = 'from mmext.cli import main; main()'
    args = [command] if command else []
    out = run(code, *args, '--help')
    assert out.startswith(f'usage: mmext {command or "COMMAND"} ')
    assert out.endswith('loaded:\n')


def test_each_tool_is_a_command():
    commands = sorted(TOOLS / script for script, _ in COMMANDS.values())
    assert commands == SCRIPTS
