# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What ``import mmext`` changes, in a new Python for each order of imports.

A Python that imports MMDetection takes seconds to start, so each one runs
several checks.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module, reload
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import mmengine.registry
import pytest
import torch
from commands import run_python
from mmengine.registry import Registry

import mmext
from mmext.hosts import LOCATIONS, HostFinder

REPLACED = (
    'from mmengine.runner import CheckpointLoader as c; '
    'print(c._get_checkpoint_loader("a.pth").__module__)'
)

LIGHT = """
import sys, mmext
heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet'} & set(sys.modules)
assert not heavy, heavy
"""
# The classes of mmext are imported by the first look-up of all.
LOOK_UP = """
import json, sys
from importlib import import_module
import mmengine.registry
for name in sys.argv[2:]:
    scope = import_module(f'{name}.registry')
    for kind, names in json.loads(sys.argv[1]).items():
        registry = getattr(scope, kind, getattr(mmengine.registry, kind))
        for name in names:
            assert registry.get(name).__module__.startswith('mmext.'), name
"""
LOOK_UP_BY_A_USER = """
from mmengine.registry import MODELS, Registry
mine = Registry('model', parent=MODELS, scope='mine')
assert mine.get('StarNet') is mine.get('StarNet') is not None
assert mine.get('NoSuchNet') is None
"""
LOOK_UP_BY_THREADS = """
from concurrent.futures import ThreadPoolExecutor
from mmdet.registry import MODELS
with ThreadPoolExecutor(4) as pool:
    found = set(pool.map(MODELS.get, ['StarNet'] * 4))
assert len(found) == 1 and None not in found
"""
# With OpenMMLab's builds this import fails without mmext's ops.
PACKAGES = """
for name in ('mmdet.apis', 'mmdet.datasets', 'mmseg.apis', 'mmseg.datasets'):
    try:
        __import__(name)
    except ImportError:
        pass
import mmext
"""
CONFIG = """
from mmengine.config import Config
Config.fromfile('config.py')
"""
CHECKPOINT = """
from mmengine.runner import CheckpointLoader
try:
    CheckpointLoader.load_checkpoint('evil.pth')
except Exception as error:
    assert type(error).__name__ == 'UntrustedCheckpointError', error
else:
    raise AssertionError('the checkpoint was loaded')
"""
BASE = """
from mmengine.config import Config
assert Config.fromfile('seg.py').model.type == 'EncoderDecoder'
"""


def python(code: str, folder: Path, *args: str) -> tuple[str, str]:
    """Runs code in a new Python: what it prints to stdout and stderr."""
    done = run_python('-c', code, *args, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


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
            # It needs MMSegmentation; other tests have imported it.
            and cls.__module__ != 'mmext.datasets.shapes.seg_dataset'
        ]
        for kind, registry in vars(mmengine.registry).items()
        if isinstance(registry, Registry)
    }
    assert 'StarNet' in names['MODELS'] and names['RUNNERS']
    return {kind: found for kind, found in names.items() if found}


def test_all_registries_with_classes_of_mmext_have_locations(registered):
    kinds = {getattr(mmengine.registry, kind).name for kind in registered}
    assert kinds == set(LOCATIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two configs and a checkpoint that runs code."""

    class Evil:
        def __reduce__(self) -> tuple:
            return print, ('code of the checkpoint was run',)

    torch.save({'state_dict': Evil()}, tmp_path / 'evil.pth')
    (tmp_path / 'config.py').write_text(
        "custom_imports = dict(imports=['mmext'], allow_failed_imports=False)"
    )
    base = 'mmseg::_base_/models/fpn_r50.py'
    (tmp_path / 'seg.py').write_text(f'_base_ = {base!r}')
    return tmp_path


def installed(*scopes: str) -> list[str]:
    return [scope for scope in scopes if find_spec(scope)]


def test_mmext_first(folder, registered):
    """Also, nothing is printed when the packages are imported."""
    scopes = installed('mmpretrain', 'mmseg', 'mmdet')
    packages = ['mmdet.apis', 'mmdet.evaluation']
    packages += [f'{scope}.datasets' for scope in scopes]
    code = LIGHT + LOOK_UP + LOOK_UP_BY_A_USER
    code += f'import {", ".join(packages)}'
    if 'mmseg' in scopes:
        code += BASE
    printed = python(code, folder, json.dumps(registered), *scopes)
    assert printed == ('', '')


def test_registry_and_runner_first(folder, registered):
    code = 'import mmengine.runner, mmdet.registry, mmext'
    out, _ = python(
        code + CHECKPOINT + LOOK_UP, folder, json.dumps(registered), 'mmdet'
    )
    assert 'was run' not in out


def test_packages_first(folder, registered):
    scopes = installed('mmseg', 'mmdet')
    python(PACKAGES + LOOK_UP, folder, json.dumps(registered), *scopes)


def test_a_config_first(folder, registered):
    code = CONFIG + CHECKPOINT + LOOK_UP_BY_THREADS + LOOK_UP
    out, _ = python(code, folder, json.dumps(registered), 'mmdet')
    assert 'was run' not in out


def test_other_output_of_a_noisy_module_is_kept(tmp_path):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').touch()
    (tmp_path / 'mmdet' / 'datasets.py').write_text(
        'print("before")\nprint("Could not import OneDL. Skipping.")\n'
        'print("after")\n1 / 0'
    )
    code = """
import mmext
try:
    import mmdet.datasets
except ZeroDivisionError:
    pass
"""
    assert python(code, tmp_path)[0] == 'before\nafter\n'


@pytest.mark.parametrize('name', ['read', 'load', 'trust', 'files'])
def test_any_module_of_checkpoints_is_imported_first(name):
    """Imports of MMEngine import the loaders, which import these."""
    code = f'import mmext.checkpoints.{name}; import mmengine.runner'
    done = run_python('-c', f'{code}; {REPLACED}')
    assert (done.returncode, done.stdout) == (0, 'mmext.checkpoints.read\n')


def test_nvcc_without_a_gpu_gives_no_warning(caplog):
    logger = logging.getLogger('torch.utils.cpp_extension')
    logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", '/usr')
    logger.warning('another warning')
    assert [record.msg for record in caplog.records] == ['another warning']


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
