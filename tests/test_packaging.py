# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The content of the wheel, its command, and the metafiles."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from commands import ROOT, run_python

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
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which `pip install .` has installed a copy."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('mmext', 'configs', 'tools'):
        shutil.copytree(
            ROOT / name,
            source / name,
            ignore=shutil.ignore_patterns('__pycache__'),
        )
    for pattern in ('*.py', '*.toml', '*.yml', '*.md', 'MANIFEST.in'):
        for file in ROOT.glob(pattern):
            shutil.copy(file, source)
    pip = ['pip', 'install', '-q', '--no-deps', '--no-build-isolation']
    pip += ['--disable-pip-version-check']
    target = folder / 'installed'
    run_python('-m', *pip, '--target', target, source, check=True)
    return target


@pytest.mark.parametrize('name', ['configs', 'tools'])
def test_wheel_contains_the_files_of_mim(installed: Path, name: str) -> None:
    patterns = ('*.py', '*.sh', '*.yml')
    want = tree(ROOT / name, *patterns)
    mim = installed / 'mmext' / '.mim'
    assert want and tree(mim / name, *patterns) == want
    assert (mim / 'model-index.yml').is_file()


def test_wheel_contains_all_modules_and_data_files(installed: Path) -> None:
    patterns = ('*.py', '*.json', '*.html', '*.j2', '*.pth')
    content = tree(installed / 'mmext', *patterns)
    assert tree(ROOT / 'mmext', *patterns) <= content


def run_installed(installed: Path, *command: str | Path) -> str:
    environ = {'PYTHONPATH': str(installed)}
    done = run_python(*command, cwd=installed, environ=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_of_the_wheel_runs_its_tools(installed: Path) -> None:
    script = installed / 'bin' / 'mmext'
    assert 'Train and compare' in run_installed(installed, script)
    for command in ('train', 'compare', 'check-data'):
        out = run_installed(installed, script, command, '--help')
        assert out.startswith(f'usage: mmext {command} ')
    code = 'import mmext.cli as m; print(m.__file__, m.packaged("configs"))'
    cli, configs = run_installed(installed, '-c', code).split()
    assert Path(cli) == installed / 'mmext' / 'cli.py'
    assert Path(configs) == installed / 'mmext' / '.mim' / 'configs'


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
    head = path.read_text().split('\n_base_')[0]
    assert head.startswith('# ')
    assert path.name in head, 'the header names the command that runs it'
