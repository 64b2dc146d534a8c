# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/compare.py, as a user runs it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def compare(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / 'tools/compare.py', *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_missing_folder_is_one_message(tmp_path: Path) -> None:
    done = compare(tmp_path / 'nowhere', tmp_path)
    assert done.returncode != 0
    assert 'does not exist' in done.stderr
    assert 'Traceback' not in done.stderr
