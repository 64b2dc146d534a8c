# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the import checks and the self-test in processes of their own.

A package that was compiled for another version can crash the process. The
results that were reported before the crash remain, and the check that was
running is known.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from mmext.doctor.imports import MODULES
from mmext.doctor.packages import install_line
from mmext.doctor.result import OK, PROBLEM, Result
from mmext.errors import debugging

SECONDS = 600
TRACE = 'MMEXT_DEBUG=1 mmext doctor shows all of the error.'
_OPENCV = 'pip install --force-reinstall --no-deps opencv-python-headless'
_TORCH = 'pip install --force-reinstall torch torchvision'
_OTHER_TORCH = (
    'It was built for another torch. Reinstall the two together: '
    f'{_TORCH}; a compiled mmcv must be rebuilt.'
)
#: Part of an error's message -> remedy. The first one that matches is used.
REMEDIES = {
    'libGL.so': _OPENCV,
    'libgthread': _OPENCV,
    "No module named 'pkg_resources'": "pip install 'setuptools<82'",
    'undefined symbol': _OTHER_TORCH,
    'operator torchvision::nms does not exist': _TORCH,
    'numpy.core.multiarray failed to import': "pip install 'numpy<2'",
    'compiled using NumPy 1.x': "pip install 'numpy<2'",
    'out of memory': 'Another process uses the GPU: nvidia-smi shows it.',
    'no kernel image is available': 'Install a torch that is built for this '
    'GPU: https://pytorch.org/get-started/locally',
}
_MARK = 'doctor: '
# Unlike `python FILE`, this does not put the file's folder on the path.
_CODE = 'import runpy, sys; runpy.run_path(sys.argv[1], run_name="__main__")'


def check_imports() -> list[Result]:
    """Checks that the packages can be imported, mmcv's ops and the GPUs."""
    return _run('imports')


def run_self_test() -> list[Result]:
    """Runs ops with known results, and one training step."""
    return _run('self_test')


def _run(script: str) -> list[Result]:
    """Runs a script of this package and reads its results.

    The script prints lines of JSON: ``{"start": [part, name]}`` before a
    check that can crash the process, and the fields of a result after it.
    """
    file = Path(__file__).resolve().with_name(f'{script}.py')
    try:
        done = subprocess.run(
            [sys.executable, '-c', _CODE, str(file)],
            capture_output=True,
            text=True,
            errors='replace',
            timeout=SECONDS,
        )
        out, err, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out = (error.stdout or b'').decode(errors='replace')
        err, status = f'no answer in {SECONDS} s', 1
    if debugging():
        sys.stderr.write(err)
    results, running = [], None
    for line in out.splitlines():
        if not line.startswith(_MARK):
            continue
        event = json.loads(line.removeprefix(_MARK))
        running = event.pop('start', None)
        if running is not None:
            continue
        error = event.pop('error', None)
        if error is not None:
            event.update(state=PROBLEM, value=error, remedy=_remedy(error))
        results.append(Result(**{'state': OK, **event}))
    if running is not None or status:
        part, name = running or ('Self-test', script)
        results.append(_crash(part, name, status, err))
    return results


def _crash(part: str, name: str, status: int, err: str) -> Result:
    """Describes the end of a process during a check."""
    if status >= 0:
        last = err.strip().splitlines()[-1:] or ['']
        return Result(part, name, PROBLEM, last[0], _remedy(err))
    try:
        ended_by = signal.Signals(-status).name
    except ValueError:
        ended_by = f'signal {-status}'
    remedy = _remedy(err)
    if name == 'mmcv._ext':
        remedy = _OTHER_TORCH
    elif part == 'Imports':
        remedy = f'pip install --force-reinstall {name}'
    return Result(part, name, PROBLEM, f'ended by {ended_by}', remedy)


def _remedy(error: str) -> str:
    for text, remedy in REMEDIES.items():
        if text in error:
            return remedy
    if 'mmext needs' in error or 'is incompatible' in error:
        return install_line()
    if found := re.search(r"No module named '(\w+)", error):
        if found[1] in ('mmext', *MODULES):
            return install_line()
        return f'pip install {found[1]}'
    return TRACE
