# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``tools/dev/upstream_tests.py``: its table, and the pretended GPU."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from commands import ROOT, run_python

SCRIPT = ROOT / 'tools/dev/upstream_tests.py'
RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_ops.test_a.TestA" name="test_x"/>
<testcase classname="tests.test_ops.test_a.TestA" name="test_y">
<skipped message="requires MLU support"/></testcase>
<testcase classname="" name="tests.test_ops.test_b">
<error message="collection failure">tests/test_ops/test_b.py:3: in module
    import absent
E   ModuleNotFoundError: No module named 'absent'</error></testcase>
<testcase classname="tests.test_ops.test_a" name="test_z">
<failure message="AssertionError: 1 != 2
where">E  AssertionError</failure></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location('upstream_tests', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_says_why_a_file_was_not_collected(script: ModuleType) -> None:
    text = script.table(ElementTree.fromstring(RESULTS))
    assert '| all | 1 | 2 | 1 |' in text
    assert "`test_b`: ModuleNotFoundError: No module named 'absent'" in text
    assert '`test_a.test_z`: AssertionError: 1 != 2' in text
    assert '- 1 x requires MLU support' in text


def test_missing_modules_are_named(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match='absent-module.*pip install absent-'):
        script.require('pytest', 'absent_module')


def test_gpu_is_pretended_before_mmcv_is_imported(tmp_path: Path) -> None:
    """Of a checkout, with PYTHONPATH kept."""
    tests = tmp_path / 'source/tests/test_ops'
    tests.mkdir(parents=True)
    (tests / 'test_it.py').write_text(
        'import torch, mmcv, kept\n'
        'from mmcv.utils import IS_CUDA_AVAILABLE\n'
        'def test_it():\n'
        '    assert IS_CUDA_AVAILABLE\n'
        "    assert torch.ones(2, device='cuda').is_cuda\n"
    )
    (tmp_path / 'path').mkdir()
    (tmp_path / 'path/kept.py').write_text('')
    (tmp_path / 'path/parameterized.py').write_text('')
    done = run_python(
        *(SCRIPT, 'mmcv', '--source', tmp_path / 'source'),
        environ={'PYTHONPATH': f'{tmp_path}/path{os.pathsep}{ROOT}'},
    )
    assert '| all | 1 | 0 | 0 |' in done.stdout, done.stdout + done.stderr
