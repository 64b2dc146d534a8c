# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs a test file as a program with Triton's interpreter."""

from __future__ import annotations

import os
from pathlib import Path

from commands import environment, run_python


def run_interpreted(file: str, *arguments: Path) -> str:
    """Returns what the file prints in a new process.

    The interpreter is chosen when Triton is imported.
    """
    path = f'{environment()["PYTHONPATH"]}{os.pathsep}{Path(file).parent}'
    done = run_python(
        file,
        *arguments,
        environ={'TRITON_INTERPRET': '1', 'PYTHONPATH': path},
        timeout=None,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
