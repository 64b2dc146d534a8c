# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs a test file as a program with Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_interpreted(file: str, *arguments: Path) -> str:
    """Returns what the file prints in a new process.

    The interpreter is chosen when Triton is imported.
    """
    helpers, tests = Path(__file__).parent, Path(file).parent
    done = subprocess.run(
        [sys.executable, file, *arguments],
        env={
            **os.environ,
            'TRITON_INTERPRET': '1',
            'PYTHONPATH': f'{helpers}{os.pathsep}{tests}',
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
