# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Makes the ops available in an environment without importing mmext.

Two files are written to site-packages: a copy of ``finder.py``, and a
``.pth`` file with which Python runs it at each start. Neither imports torch;
both do nothing if mmext has been uninstalled.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from mmext.mmcv_ext import finder

_MODULE = '_mmext_mmcv_ext'
# site.py requires one line that starts with "import". It must not fail: its
# traceback would be printed at each start of Python.
_LINE = (
    f'import sys; exec("try:\\n import {_MODULE} as m; m.register()'
    '\\nexcept Exception: pass")\n'
)


def files(folder: Path | None = None) -> dict[Path, str]:
    """Returns the files, with their contents, in site-packages by default."""
    folder = Path(folder or sysconfig.get_path('purelib'))
    return {
        folder / f'{_MODULE}.py': Path(finder.__file__).read_text('utf-8'),
        folder / f'{_MODULE}.pth': _LINE,
    }


def state(folder: Path | None = None) -> str:
    """Returns ``installed``, ``outdated`` or ``not installed``."""
    wanted = files(folder)
    if not any(path.exists() for path in wanted):
        return 'not installed'
    same = all(
        path.exists() and path.read_text('utf-8') == text
        for path, text in wanted.items()
    )
    return 'installed' if same else 'outdated'


def install(folder: Path | None = None) -> None:
    for path, text in files(folder).items():
        path.write_text(text, 'utf-8')


def uninstall(folder: Path | None = None) -> None:
    """Removes the two files and the cached bytecode."""
    for path in reversed(files(folder)):
        path.unlink(missing_ok=True)
        for cached in path.parent.glob(f'__pycache__/{path.stem}.*.pyc'):
            cached.unlink()
