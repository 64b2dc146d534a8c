# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs a test file as a program with Triton's interpreter."""

from __future__ import annotations

import os
from pathlib import Path

from commands import ROOT, run_python


def run_interpreted(file: str, *arguments: Path) -> str:
    """Returns what the file prints in a new process.

    The interpreter is chosen when Triton is imported.
    """
    paths = [ROOT, ROOT / 'tests/helpers', Path(file).parent]
    environ = {
        'TRITON_INTERPRET': '1',
        'PYTHONPATH': os.pathsep.join(map(str, paths)),
    }
    done = run_python(file, *arguments, environ=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
