# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/compare.py, as a user runs it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/compare.py'


def compare(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TOOL, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_missing_folder_is_one_message(tmp_path: Path) -> None:
    done = compare(tmp_path / 'nowhere', tmp_path)
    assert done.returncode != 0
    assert 'does not exist' in done.stderr
    assert 'Traceback' not in done.stderr


def test_resamples_too_few_for_the_level(
    capsys: pytest.CaptureFixture,
) -> None:
    parse = runpy.run_path(str(TOOL))['parse_args']
    assert parse(['a', 'b', '--level', '0.99']).resamples == 1000
    with pytest.raises(SystemExit):
        parse(['a', 'b', '--level', '0.999'])
    assert 'give 2000 or more for --level 0.999' in capsys.readouterr().err
