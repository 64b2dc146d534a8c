# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Imports and the self-test, in processes of their own.

A package that is built for another version can end the whole process; what
was said before remains, and what was being tried is known.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .findings import OK, PROBLEM, Finding
from .packages import install_line

FOLDER = Path(__file__).resolve().parent
SECONDS = 600
TRACE = 'MMEXT_DEBUG=1 python tools/misc/doctor.py shows all of the error.'

# A part of an error's text -> what mends it; the first that fits.
REMEDIES = {
    'libGL.so': 'pip install --force-reinstall --no-deps '
    'opencv-python-headless',
    'libgthread': 'pip install --force-reinstall --no-deps '
    'opencv-python-headless',
    "No module named 'pkg_resources'": "pip install 'setuptools<82'",
    'undefined symbol': 'It was built for another torch. Reinstall the two '
    'together: pip install --force-reinstall torch torchvision; a compiled '
    'mmcv must be built anew.',
    'operator torchvision::nms does not exist': 'pip install '
    '--force-reinstall torch torchvision',
    'numpy.core.multiarray failed to import': "pip install 'numpy<2'",
    'compiled using NumPy 1.x': "pip install 'numpy<2'",
    'out of memory': 'Another process has the GPU: nvidia-smi shows it.',
    'no kernel image is available': 'Install a torch that is built for this '
    'GPU: https://pytorch.org/get-started/locally',
}
# Modules that come with mmext's requirements.
REQUIRED = {
    'cv2',
    'mmcv',
    'mmdet',
    'mmengine',
    'mmext',
    'numpy',
    'torch',
    'torchvision',
}


def examine_imports() -> Iterator[Finding]:
    """Whether the packages import, which ops are used, and the GPUs."""
    return _run('imports')


def examine_self_test() -> Iterator[Finding]:
    """Ops against exact numbers and one step of training."""
    return _run('self_test')


def _run(script: str) -> list[Finding]:
    """Runs a script of this package and reads what it says.

    It writes JSON lines: ``{"start": [part, name]}`` before something that
    may end the process, and the fields of a finding after it.
    """
    file = FOLDER / f'{script}.py'
    try:
        done = subprocess.run(
            # Without the script's folder on the path, which -c leaves out.
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
    if os.environ.get('MMEXT_DEBUG', '0') not in ('', '0'):
        sys.stderr.write(err)
    found, started = [], None
    for line in out.splitlines():
        if not line.startswith(_MARK):
            continue
        event = json.loads(line[len(_MARK) :])
        if 'start' in event:
            started = event['start']
            continue
        started = None
        error = event.pop('error', None)
        if error:
            event.update(state=PROBLEM, value=error, remedy=_remedy(error))
        found.append(Finding(**{'state': OK, **event}))
    if started or status:
        part, name = started or ('Self-test', script)
        last = err.strip().splitlines()[-1:] or ['']
        what = f'ended by {_name(-status)}' if status < 0 else last[0]
        remedy = _remedy(err)
        if status < 0 and name == 'mmcv._ext':
            remedy = REMEDIES['undefined symbol']
        elif status < 0 and part == 'Imports':
            remedy = f'pip install --force-reinstall {name}'
        found.append(Finding(part, name, PROBLEM, what, remedy))
    return found


_MARK = 'doctor: '
_CODE = (
    'import runpy, sys; sys.argv = sys.argv[1:]; '
    'runpy.run_path(sys.argv[0], run_name="__main__")'
)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


def _remedy(error: str) -> str:
    for text, remedy in REMEDIES.items():
        if text in error:
            return remedy
    if 'mmext needs' in error or 'is incompatible' in error:
        return install_line()
    if found := re.search(r"No module named '(\w+)", error):
        package = found[1]
        return (
            install_line() if package in REQUIRED else f'pip install {package}'
        )
    return TRACE
