# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/misc/doctor.py in working and in broken environments."""

from __future__ import annotations

import json
import os
import re
import sys
import venv
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from commands import ROOT, run_command, run_python

from mmext.doctor import imports, machine, packages, processes, self_test
from mmext.doctor.result import NOTE, OK, PROBLEM, Result, as_text

TOOL = ROOT / 'tools/misc/doctor.py'


def run(*path: Path) -> tuple[int, dict[tuple[str, str], dict]]:
    """Returns the exit status, and the results by part and name.

    Args:
        path: Folders that Python searches first. Default: none.
    """
    environ = {'PYTHONPATH': os.pathsep.join(map(str, (*path, ROOT)))}
    done = run_python(TOOL, '--json', environ=environ)
    output = json.loads(done.stdout)
    found = {(f['part'], f['name']): f for f in output['found']}
    problems = [f for f in output['found'] if f['state'] == PROBLEM]
    assert output['problems'] == len(problems)
    assert done.returncode == bool(problems)
    assert all(f['remedy'] for f in problems)
    return done.returncode, found


def test_an_environment_that_works():
    _, found = run()
    # The machine that runs the tests can have problems, such as its disk.
    assert not [
        f
        for (part, _), f in found.items()
        if f['state'] == PROBLEM and part not in ('Machine', 'GPU')
    ]
    ops = found["mmcv's ops", 'mmcv._ext']['value']
    if ops.startswith('by mmext'):
        assert 'roi_align' in found["mmcv's ops", 'implemented']['value']
    tests = {
        n: f for (p, n), f in found.items() if p == 'Self-test on the CPU'
    }
    assert len(tests) == 9
    assert re.match(r'loss \d', tests['training step']['value'])
    assert tests['roi_align']['value'] == 'exact'


@pytest.mark.parametrize(
    ('works', 'aborts', 'remedy'),
    [
        ('torch', 'torchvision', 'torchvision'),
        ('mmcv', 'mmcv._ext', 'must be rebuilt'),
    ],
)
def test_a_module_that_ends_the_process(tmp_path, works, aborts, remedy):
    """As a package built for another torch does; earlier results remain."""
    if aborts == 'mmcv._ext':
        (tmp_path / 'mmcv').mkdir()
        (tmp_path / 'mmcv/__init__.py').write_text("__version__ = '2.3.6'")
    file = tmp_path / f'{aborts.replace(".", "/")}.py'
    file.write_text('import os; os.abort()')
    status, found = run(tmp_path)
    assert status == 1
    assert found['Imports', works]['state'] == OK
    assert found['Imports', aborts]['value'] == 'ended by SIGABRT'
    assert remedy in found['Imports', aborts]['remedy']
    assert not any('Self-test' in part for part, _ in found)


def printed(capsys: pytest.CaptureFixture) -> list[dict]:
    """Returns the results that a check in another process prints."""
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(x.removeprefix('doctor: ')) for x in lines if x]


@pytest.mark.parametrize(
    ('cuda', 'gpu', 'problem'),
    [
        ('not available', False, False),
        ('not available', True, True),
        ('13.2', True, False),
    ],
)
def test_compiled_ops(monkeypatch, capsys, cuda, gpu, problem):
    compiled = ModuleType('mmcv._ext')
    compiled.__file__ = '/here/_ext.so'
    compiled.__spec__ = ModuleSpec('mmcv._ext', None, origin='/here/_ext.so')
    compiled.get_compiling_cuda_version = lambda: cuda
    compiled.get_compiler_version = lambda: 'GCC 12.2'
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    assert imports.is_compiled()
    imports.check_ops()
    output = printed(capsys)
    assert [f['name'] for f in output] == ['mmcv._ext', 'built for']
    assert output[0]['value'] == 'compiled, /here/_ext.so'
    built = 'the CPU' if cuda == 'not available' else 'CUDA 13.2'
    assert output[1]['value'].startswith(f'{built}, by GCC 12.2')
    assert (output[1].get('state') == PROBLEM) == problem
    assert ('FORCE_CUDA=1' in output[1].get('remedy', '')) == problem


def test_an_op_that_compiled_builds_leave_out_is_a_note(capsys):
    def missing():
        raise RuntimeError(
            'roi_pool_forward_impl: implementation for device cpu not found.'
        )

    self_test.run('Self-test', 'roi_pool', missing)
    result = printed(capsys)[-1]
    assert result['state'] == NOTE
    assert 'not among the compiled ops' in result['value']


def test_without_any_package(tmp_path):
    venv.create(tmp_path)
    python = tmp_path / 'bin/python'
    done = run_command(python, TOOL, environ={'PYTHONPATH': ''})
    assert done.returncode == 1, done.stderr
    assert 'Traceback' not in done.stderr
    install = "-> In mmext's checkout: pip install -e '.[onedl]'"
    assert done.stdout.count(install) == 1, 'one line fixes all'
    output = done.stdout.split('problem: Packages', maxsplit=1)[1]
    assert output.count('->') == 1, 'the packages have no other problem'


@pytest.fixture
def environment(monkeypatch):
    """Pretends that only these distributions are installed."""

    def pretend(**versions: str) -> dict[str, Result]:
        installed = [
            SimpleNamespace(
                metadata={'Name': name.replace('_', '-')}, version=version
            )
            for name, version in versions.items()
        ]
        monkeypatch.setattr(metadata, 'distributions', lambda: installed)
        return {
            f.name: f
            for f in packages.check_packages()
            if f.state != OK and f.value != 'not installed'
        }

    return pretend


ONEDL = {
    'onedl_mmengine': '0.10.12',
    'onedl_mmcv': '2.3.6',
    'onedl_mmdetection': '3.5.1',
    'torch': '2.15.0',
}
OPENMMLAB = {'mmengine': '0.10.7', 'mmcv_lite': '2.1.0', 'mmdet': '3.3.0'}


def test_versions_that_fit_together(environment):
    assert environment(**ONEDL, setuptools='82.0.1') == {}
    assert environment(**OPENMMLAB, setuptools='81.0') == {}


def test_both_stacks(environment):
    found = environment(**ONEDL, **OPENMMLAB)['stack']
    assert found.state == PROBLEM
    for name in ('onedl-mmcv', 'mmcv-lite', 'mmdet'):
        assert name in found.remedy


@pytest.mark.parametrize(
    ('stack', 'package', 'version', 'remedy'),
    [
        (ONEDL, 'onedl_mmcv', '2.4.0', "pip install 'onedl-mmcv.*<2.4.*"),
        (OPENMMLAB, 'setuptools', '82.0.1', "pip install 'setuptools<82'"),
        (OPENMMLAB, 'mmcv', '2.1.0', '.*mmcv-lite.*'),
    ],
)
def test_a_package_that_does_not_fit(
    environment, stack, package, version, remedy
):
    found = environment(**{**stack, package: version})
    found = found[package.replace('_', '-')]
    assert found.state == PROBLEM
    assert re.fullmatch(remedy, found.remedy)


def test_an_untested_version_is_a_note(environment):
    found = environment(**{**ONEDL, 'torch': '2.99.0'})
    assert found['torch'].state == NOTE
    assert found['torch'].value == '2.99.0; tested: 2.13, 2.14, 2.15'


@pytest.mark.parametrize('needs', ['torch==2.5.1', 'torch (>=2.14.0)'])
def test_a_torchvision_for_another_torch(environment, monkeypatch, needs):
    monkeypatch.setattr(metadata, 'requires', lambda name: ['numpy', needs])
    found = environment(**{**ONEDL, 'torch': '2.6.0'}, torchvision='0.20.1')
    assert found['torchvision'].value == (
        f'0.20.1 needs {needs}, and torch is 2.6.0'
    )
    found = environment(**ONEDL, torchvision='0.29.2')
    assert ('torchvision' in found) == ('==' in needs)


def test_missing_packages_are_those_of_the_stack_in_use(environment):
    environment(mmengine='0.10.7')
    assert '[openmmlab]' in packages.install_line()
    environment()
    assert '[onedl]' in packages.install_line()


@pytest.fixture
def disk(monkeypatch):
    """The sizes of every disk, which a test sets."""
    sizes = SimpleNamespace()
    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda _: sizes)
    return sizes


def test_a_container_with_docker_s_shared_memory(disk):
    disk.total = 64 * 2**20
    found = machine._shared_memory(Path('/dev'))
    assert found.state == PROBLEM and '--shm-size' in found.remedy


def test_a_disk_almost_full(disk, tmp_path):
    for free, state in ((2**29, PROBLEM), (2**32, NOTE), (2**35, OK)):
        disk.free = free
        # A folder that does not exist yet is on its parent's disk.
        assert machine._disk('disk', tmp_path / 'a/b').state == state


def test_folders_that_do_not_exist(monkeypatch, tmp_path):
    """No home, no temporary folder, and a removed working folder."""

    def gone() -> str:
        raise FileNotFoundError(2, 'No usable temporary directory found')

    monkeypatch.setattr(machine.tempfile, 'gettempdir', gone)
    monkeypatch.setattr(machine.os, 'getcwd', gone)
    monkeypatch.setattr(machine.os.path, 'expanduser', lambda path: path)
    monkeypatch.delenv('MMEXT_CACHE', raising=False)
    found = {f.name: f for f in machine.check_machine()}
    for name in ('disk, work', 'disk, temporary'):
        assert found[name].state == PROBLEM
        assert 'No usable' in found[name].value and found[name].remedy
    assert '~/.cache' in found['disk, cache'].value


def test_the_home_of_another_user(monkeypatch, tmp_path):
    """As sudo without -H leaves it."""
    stat = os.stat

    def refused(path, **options):
        if 'secret' in os.fspath(path):
            raise PermissionError(13, 'Permission denied')
        return stat(path, **options)

    monkeypatch.setattr(os, 'stat', refused)
    monkeypatch.setattr(os, 'access', lambda path, how: False)
    found = machine._disk('disk, cache', tmp_path / 'secret/.cache/mmext')
    assert 'not writable' in found.value and 'MMEXT_CACHE' in found.remedy


@pytest.mark.parametrize(
    ('error', 'remedy'),
    [
        ('ImportError: libGL.so.1: cannot open', 'opencv-python-headless'),
        ("No module named 'pkg_resources'", 'setuptools<82'),
        ("No module named 'torch'", 'pip install -e'),
        ("No module named 'terminaltables'", 'pip install terminaltables'),
        ('libc10.so: undefined symbol: _ZN3c', '--force-reinstall torch'),
        ('something new', 'MMEXT_DEBUG=1'),
    ],
)
def test_remedies(error, remedy):
    assert remedy in processes._remedy(error)


def test_a_remedy_is_printed_once():
    def text(state: str) -> str:
        values = (state, 'small', 'free some')
        results = [Result('A', name, *values) for name in ('one', 'two')]
        return as_text([*results, Result('A', 'three', OK, 'fine')])

    problems = text(PROBLEM)
    assert problems.count('-> free some') == 1
    assert problems.endswith('2 problems')
    _, _, second, remedy, third, *_ = text(NOTE).splitlines()
    assert 'two' in second and 'three' in third
    assert remedy.strip() == '-> free some'


def test_the_table_is_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')
    text = as_text([Result('A', 'ops', OK, 'nms, ' * 30)])
    assert 50 < max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize('wrong', ['nms', 'roi_align', 'deform_conv2d'])
def test_the_self_test_notices_a_wrong_op(monkeypatch, wrong):
    right = getattr(self_test.ops, wrong)

    def broken(*args, **kwargs):
        out = right(*args, **kwargs)
        return (out[0], out[1] + 1) if wrong == 'nms' else out + 0.01

    test = getattr(self_test, f'test_{wrong}')
    self_test.compare(test, 'cpu')
    monkeypatch.setattr(self_test.ops, wrong, broken)
    with pytest.raises(ArithmeticError, match='off by'):
        self_test.compare(test, 'cpu')
