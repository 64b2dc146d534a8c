# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a wheel carries, and what the metadata promises."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LEAVES = [
    p
    for p in sorted((ROOT / 'configs').rglob('*.py'))
    if '_base_' not in p.relative_to(ROOT).parts
]


def tree(folder: Path, *patterns: str) -> set[str]:
    return {
        str(p.relative_to(folder))
        for pattern in patterns
        for p in folder.rglob(pattern)
    }


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` would put into site-packages."""
    out = tmp_path_factory.mktemp('build')
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', out],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return out / 'mmext'


@pytest.mark.parametrize('name', ['configs', 'tools'])
def test_wheel_carries_mim_files(built: Path, name: str) -> None:
    patterns = ('*.py', '*.sh', '*.yml')
    want = tree(ROOT / name, *patterns)
    assert want and tree(built / '.mim' / name, *patterns) == want


def test_wheel_carries_every_module_and_data_file(built: Path) -> None:
    patterns = ('*.py', '*.json', '*.html', '*.j2', '*.pth')
    assert tree(ROOT / 'mmext', *patterns) <= tree(built, *patterns)


def test_model_index_lists_every_metafile() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == sorted(
        str(p.relative_to(ROOT))
        for p in (ROOT / 'configs').rglob('metafile.yml')
    )


def test_config_base_names_are_unique() -> None:
    # `mim` finds a config by its base name alone.
    twice = [n for n, k in Counter(p.name for p in LEAVES).items() if k > 1]
    assert not twice


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_leaf_opens_with_its_command(path: Path) -> None:
    head = path.read_text().split('_base_')[0]
    assert head.startswith('# ')
    assert path.name in head, 'the header names the command that runs it'
