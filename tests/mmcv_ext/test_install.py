# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmcv._ext`` in each order of imports, in a new Python if needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import mmext
from mmext.mmcv_ext import __main__ as cli
from mmext.mmcv_ext import finder, permanent, stubs

# isort: split
import mmcv
import mmcv.ops
import mmdet

try:
    ONEDL = bool(version('onedl-mmcv'))
except PackageNotFoundError:
    ONEDL = False
OURS = mmcv._ext.__name__ == 'mmcv._ext' and hasattr(mmcv._ext, '__path__')
pytestmark = pytest.mark.skipif(
    not OURS, reason='mmcv is compiled, so it does not use our ops'
)

USE_OPS = """
import torch, mmcv.ops
feat = torch.arange(64.).view(1, 1, 8, 8)
rois = torch.tensor([[0., 0, 0, 4, 4]])
out = mmcv.ops.roi_align(feat, rois, 1, 1.0, 2, 'avg', True)
assert out.item() == 13.5, out
"""


def python(code: str, *flags: str, cwd: Path) -> str:
    """Returns the output of a new Python outside of the clone."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    env.pop('PYTHONPATH', None)
    done = subprocess.run(
        [sys.executable, *flags, '-c', code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with mmext's ops and an empty mmcv."""
    permanent.install(tmp_path)
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    return tmp_path


def test_stubs_of_an_earlier_mmdet_are_replaced(tmp_path: Path) -> None:
    """As in mmdet's own tools/train.py: mmext comes with the config."""
    tool = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    head = re.findall(r'^(?:from|import) .*', tool.read_text(), re.M)
    assert any('Config' in line for line in head)
    (tmp_path / 'config.py').write_text(
        "custom_imports = dict(imports=['mmext'], "
        'allow_failed_imports=False)\n'
    )
    stubs = """
from mmdet.apis import DetInferencer, inference
from mmdet.structures.mask import structures
for stub in (structures.roi_align, inference.RoIPool):
    try:
        stub()
    except RuntimeError as error:
        assert 'compiled' in str(error)
    else:
        raise SystemExit('this build has no stubs to replace')
"""
    failing = """
try:
    import mmdet.models
except ImportError as error:
    assert 'mmcv._ext' in str(error)
else:
    raise SystemExit('mmdet.models does not need the ops')
Config.fromfile('config.py')
import mmcv.ops
from mmdet.apis import inference
from mmdet.structures.mask import structures
assert structures.roi_align is mmcv.ops.roi_align
assert inference.RoIPool is mmcv.ops.RoIPool
from mmdet.registry import MODELS
assert MODELS.get('FasterRCNN') and MODELS.get('DeformableDETR')
"""
    if not ONEDL:  # its mmdet fails where the OneDL build binds stubs
        head = [line for line in head if 'mmdet' not in line]
        stubs = ''
    python('\n'.join([*head, stubs, failing, USE_OPS]), cwd=tmp_path)


def test_permanent_without_importing_mmext(tmp_path: Path) -> None:
    permanent.install(tmp_path)
    code = f"""
import site, sys
before = set(sys.modules)
site.addsitedir({str(tmp_path)!r})
assert not {{'torch', 'mmext', 'importlib.util'}} & (set(sys.modules) - before)
{USE_OPS}
assert 'mmext' not in sys.modules
"""
    python(code, cwd=tmp_path)


def test_permanent_survives_without_mmext(site: Path) -> None:
    """Python prints nothing at its start after mmext is uninstalled."""
    start = f'import site; site.addsitedir({str(site)!r})'
    code = f"""
{start}
from importlib.util import find_spec
assert find_spec('mmext') is None
assert find_spec('mmcv._ext') is None
"""
    assert python(code, '-S', cwd=site) == ''
    (site / '_mmext_mmcv_ext.py').unlink()
    assert python(start, '-S', cwd=site) == ''


def test_compiled_ops_are_preferred_if_built_later(site: Path) -> None:
    ops = site / 'mmext' / 'mmcv_ext' / 'ops'
    ops.mkdir(parents=True)
    (site / 'mmext' / '__init__.py').write_text('raise SystemExit(1)')
    (ops / '__init__.py').touch()
    code = f"""
import importlib, site
site.addsitedir({str(site)!r})
from importlib.util import find_spec
spec = find_spec('mmcv._ext')
assert spec.loader is not None and 'mmext' in spec.origin
open({str(site / 'mmcv' / '_ext.py')!r}, 'w').close()
importlib.invalidate_caches()
assert 'mmext' not in find_spec('mmcv._ext').origin
import mmcv._ext
assert not hasattr(mmcv._ext, 'nms')
"""
    assert python(code, '-S', cwd=site) == ''


def test_permanent_is_repeatable_and_can_be_undone(tmp_path: Path) -> None:
    assert permanent.state(tmp_path) == 'not installed'
    for _ in range(2):
        permanent.install(tmp_path)
        assert permanent.state(tmp_path) == 'installed'
    (tmp_path / '_mmext_mmcv_ext.py').write_text('# of another version')
    assert permanent.state(tmp_path) == 'outdated'
    for _ in range(2):
        permanent.uninstall(tmp_path)
        assert not list(tmp_path.iterdir())


def test_command_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path))
    for flags, want in (
        ([], 'not installed'),
        (['--install'], ' installed'),
        (['--uninstall'], 'not installed'),
    ):
        monkeypatch.setattr(sys, 'argv', ['mmcv_ext', *flags])
        cli.main()
        out = capsys.readouterr().out
        assert f'{want} ({tmp_path}' in out
        assert 'mmcv._ext: mmext' in out
        assert 'roi_align_forward' in out
    locked = tmp_path / 'no' / 'such' / 'folder'
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(locked))
    monkeypatch.setattr(sys, 'argv', ['mmcv_ext', '--install'])
    with pytest.raises(SystemExit, match='Cannot change .*no/such/folder'):
        cli.main()


def test_finder_registers_once_and_finds_one_module() -> None:
    mmext.mmcv_ext.install()
    names = [getattr(f, '__name__', '') for f in sys.meta_path]
    assert names.count('MMCVExtFinder') == 1
    assert finder.MMCVExtFinder.find_spec('mmcv._extra') is None
    from mmcv.utils.ext_loader import check_ops_exist

    assert check_ops_exist()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package whose ops became available after its import."""
    (tmp_path / 'mmhost.py').write_text(
        'try:\n    from mmfakeops.nms import nms as fast_nms, Pool\n'
        'except ImportError:\n    def fast_nms(): raise RuntimeError\n'
        '    class Pool: pass\n'
    )
    (tmp_path / 'mmuser.py').write_text('from mmhost import fast_nms\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(stubs, 'OPS', 'mmfakeops')
    import mmhost
    import mmuser

    assert mmuser.fast_nms is mmhost.fast_nms
    (tmp_path / 'mmfakeops').mkdir()
    (tmp_path / 'mmfakeops' / '__init__.py').touch()
    (tmp_path / 'mmfakeops' / 'nms.py').write_text(
        'def nms(): return 1\nclass Pool: real = True\n'
    )
    yield mmhost
    for name in ('mmhost', 'mmuser', 'mmfakeops', 'mmfakeops.nms'):
        sys.modules.pop(name, None)


def test_stubs_in_other_modules_are_replaced(host: types.ModuleType) -> None:
    assert stubs.replace_stubs() == [
        'mmhost.fast_nms',
        'mmhost.Pool',
        'mmuser.fast_nms',
    ]
    assert host.fast_nms() == sys.modules['mmuser'].fast_nms() == 1
    assert host.Pool.real
    assert stubs.replace_stubs() == []


def test_a_class_derived_from_a_stub_fails(host: types.ModuleType) -> None:
    class Derived(host.Pool):
        pass

    with pytest.raises(ImportError, match='Derived was derived.*--install'):
        stubs.replace_stubs()


def test_other_functions_raise_and_name_the_fix() -> None:
    for name in ('psamask_forward', 'iou3d_nms3d_forward', 'upfirdn2d'):
        op = getattr(mmcv._ext, name)
        with pytest.raises(NotImplementedError, match=f'{name}.*pip'):
            op()
    with pytest.raises(AttributeError):
        mmcv._ext._private  # noqa: B018
    assert 'mmext' in mmcv.ops.get_compiler_version()
