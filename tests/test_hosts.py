# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What ``import mmext`` changes, in a new Python for each order of imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module, reload
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import mmengine.registry
import pytest
import torch
from mmengine.registry import Registry

import mmext
from mmext.hosts import LOCATIONS, HostFinder

ORDERS = {
    'mmext first': 'import mmext',
    'registry first': 'import {scope}.registry, mmext',
    # With OpenMMLab's builds this import fails without mmext's ops.
    'packages first': (
        'try:\n    import {scope}.apis, {scope}.datasets\n'
        'except ImportError:\n    pass\nimport mmext'
    ),
    'by a config': (
        'from mmengine.config import Config\nConfig.fromfile("config.py")'
    ),
}
CONFIG = "custom_imports = dict(imports=['mmext'], allow_failed_imports=False)"
LOOK_UP = """
import json, sys
from importlib import import_module
import mmengine.registry
scope = import_module('{scope}.registry')
for kind, names in json.loads(sys.argv[1]).items():
    registry = getattr(scope, kind, getattr(mmengine.registry, kind))
    for name in names:
        assert registry.get(name).__module__.startswith('mmext.'), name
"""
CHECKPOINT = """
from mmengine.runner import CheckpointLoader
try:
    CheckpointLoader.load_checkpoint('evil.pth')
except Exception as error:
    print(type(error).__name__)
"""


def python(code: str, folder: Path, *args: str) -> tuple[str, str]:
    """Runs code in a new Python: what it prints to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, '-c', code, *args],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def need(scope: str) -> None:
    if find_spec(scope) is None:
        pytest.skip(f'{scope} is not a part of this stack')


@pytest.fixture(scope='module')
def registered() -> dict[str, list[str]]:
    """The names that mmext registers, by the name of the registry."""
    for module in set(chain(*LOCATIONS.values())):
        import_module(module)
    names = {
        kind: [
            name
            for name, cls in registry.module_dict.items()
            if cls.__module__.startswith('mmext.')
        ]
        for kind, registry in vars(mmengine.registry).items()
        if isinstance(registry, Registry)
    }
    assert 'StarNet' in names['MODELS'] and names['RUNNERS']
    return {kind: found for kind, found in names.items() if found}


def test_all_registries_with_classes_of_mmext_have_locations(registered):
    kinds = {getattr(mmengine.registry, kind).name for kind in registered}
    assert kinds == set(LOCATIONS)


@pytest.mark.parametrize(
    ('scope', 'order'),
    [
        *(('mmdet', order) for order in ORDERS),
        ('mmseg', 'mmext first'),
        ('mmseg', 'packages first'),
        ('mmpretrain', 'mmext first'),
    ],
)
def test_registered_names_are_found(tmp_path, registered, scope, order):
    need(scope)
    (tmp_path / 'config.py').write_text(CONFIG)
    code = ORDERS[order] + LOOK_UP
    python(code.format(scope=scope), tmp_path, json.dumps(registered))


def test_names_are_found_from_a_registry_of_the_user(tmp_path):
    code = """
import mmext
from mmengine.registry import MODELS, Registry
mine = Registry('model', parent=MODELS, scope='mine')
assert mine.get('StarNet') is mine.get('StarNet')
assert mine.get('NoSuchNet') is None
"""
    python(code, tmp_path)


def test_the_import_is_light(tmp_path):
    code = """
import sys
import mmext
heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet'} & set(sys.modules)
assert not heavy, heavy
"""
    assert python(code, tmp_path) == ('', '')


@pytest.mark.parametrize('first', ['import mmext', 'import mmengine.runner'])
def test_checkpoints_are_read_safely(tmp_path, first):
    class Evil:
        def __reduce__(self) -> tuple:
            return print, ('code of the checkpoint was run',)

    torch.save({'state_dict': Evil()}, tmp_path / 'evil.pth')
    out, _ = python(f'{first}\nimport mmext{CHECKPOINT}', tmp_path)
    assert 'was run' not in out
    assert out.splitlines()[-1] == 'UntrustedCheckpointError'


def test_host_packages_are_silent(tmp_path):
    modules = ['mmdet.apis', 'mmdet.datasets', 'mmdet.evaluation']
    modules += [
        f'{scope}.datasets'
        for scope in ('mmseg', 'mmpretrain')
        if find_spec(scope)
    ]
    code = f'import mmext\nimport {", ".join(modules)}'
    assert python(code, tmp_path) == ('', '')


def test_other_output_of_a_noisy_module_is_kept(tmp_path):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').touch()
    (tmp_path / 'mmdet' / 'datasets.py').write_text(
        'print("before")\nprint("Could not import OneDL. Skipping.")\n'
        'print("after")\n1 / 0'
    )
    code = """
import sys
sys.path.insert(0, '.')
import mmext
try:
    import mmdet.datasets
except ZeroDivisionError:
    pass
"""
    assert python(code, tmp_path)[0] == 'before\nafter\n'


def test_configs_of_mmseg_are_bases(tmp_path):
    need('mmseg')
    base = 'mmseg::_base_/models/fpn_r50.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}')
    code = """
import mmext
from mmengine.config import Config
assert Config.fromfile('config.py').model.type == 'EncoderDecoder'
"""
    python(code, tmp_path)


def test_threads_find_the_same_class(tmp_path):
    code = """
import mmext
from concurrent.futures import ThreadPoolExecutor
from mmdet.registry import MODELS
with ThreadPoolExecutor(4) as pool:
    found = set(pool.map(MODELS.get, ['StarNet'] * 4))
assert len(found) == 1 and None not in found
"""
    python(code, tmp_path)


def test_repeated_installation_changes_nothing():
    locations = mmengine.registry.MODELS._locations
    method = Registry.import_from_location
    reload(mmext)
    assert sum(isinstance(f, HostFinder) for f in sys.meta_path) == 1
    assert mmengine.registry.MODELS._locations is locations
    assert Registry.import_from_location is method


def test_a_missing_host_is_not_found():
    assert HostFinder().find_spec('mmdet.datasets', []) is None
    assert HostFinder().find_spec('mmext.hosts', mmext.__path__) is None
