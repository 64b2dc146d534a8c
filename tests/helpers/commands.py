# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs tools and other commands as a user does."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = (sys.executable, '-m', 'torch.distributed.run')
TWO_PROCESSES = (*TORCHRUN, '--standalone', '--nproc_per_node=2')


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment of a command that imports mmext.

    The command uses one thread and no GPU, and can import the helpers.
    """
    return {
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '-1',
        'OMP_NUM_THREADS': '1',
        'PYTHON': sys.executable,
        'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT}/tests/helpers',
        **changes,
    }


def run_command(
    *command: object, environ: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess:
    """Runs a command in :func:`environment` and captures what it prints.

    Args:
        command: The command.
        environ: Changes of the environment. Default: none.
        options: Other options of :func:`subprocess.run`.
    """
    defaults = {
        'stdout': subprocess.PIPE,
        'stderr': subprocess.PIPE,
        'text': True,
        'timeout': 400,
    }
    return subprocess.run(
        [*map(str, command)],
        env=environment(**(environ or {})),
        **{**defaults, **options},
    )


def run_python(*arguments: object, **more: Any) -> subprocess.CompletedProcess:
    """Runs a new Python; see :func:`run_command`."""
    return run_command(sys.executable, *arguments, **more)


def run_tool(tool: str | Path, *arguments: object) -> int:
    """Runs a tool in this process and returns its exit status.

    Args:
        tool: Its path below ``tools``, or an absolute path.
        arguments: Its command line.
    """
    path = str(ROOT / 'tools' / tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [path, *map(str, arguments)])
        patch.setattr(os, 'environ', os.environ.copy())
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            return int(end.code or 0)
    return 0
