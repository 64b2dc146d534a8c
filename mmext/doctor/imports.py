# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A script that imports the packages one by one and reports the results.

Lines that start with ``doctor:`` contain JSON, see ``processes.py``. The
script runs with any of the packages missing or broken, mmext included.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
import traceback
import warnings
from types import ModuleType
from typing import Any

PART = 'Imports'
MODULES = ('numpy', 'torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmdet')
# `import mmext` imports none of these.
OURS = ('mmext', 'mmext.models', 'mmext.engine')


def report(**event: Any) -> None:
    """Prints one event for the process that reads them."""
    print('\ndoctor: ' + json.dumps(event), flush=True)


def problem(value: str, remedy: str) -> dict[str, str]:
    return {'state': 'problem', 'value': value, 'remedy': remedy}


def one_line(error: BaseException) -> str:
    """Returns the type and the message of an error in one line."""
    if os.environ.get('MMEXT_DEBUG', '0') not in ('', '0'):
        traceback.print_exception(error, file=sys.stderr)
    # The remedy in mmext's own errors is the doctor's remedy too.
    text = ' '.join(str(getattr(error, 'problem', error)).split())
    return f'{type(error).__name__}: {text}'


def try_import(name: str) -> ModuleType | None:
    """Imports a module and reports its version and folder."""
    report(start=[PART, name])
    try:
        module = importlib.import_module(name)
    # A broken package can raise anything, SystemExit included.
    except BaseException as error:
        report(part=PART, name=name, error=one_line(error))
        return None
    version = getattr(module, '__version__', '')
    folder = os.path.dirname(getattr(module, '__file__', None) or '')
    report(part=PART, name=name, value=f'{version} {folder}'.strip())
    return module


def check_gpus(torch: ModuleType) -> None:
    """Reports the GPUs that torch can use, or why there is none."""
    built = torch.version.cuda or getattr(torch.version, 'hip', None)
    report(part='GPU', name='torch is built for', value=built or 'the CPU')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if not available:
        why = ' '.join(str(w.message) for w in caught)
        report(part='GPU', name='devices', **_no_gpu(built, why))
        return
    for number in range(torch.cuda.device_count()):
        name = f'device {number}'
        try:
            event = _gpu(torch, number)
        except RuntimeError as error:
            event = {'error': one_line(error)}
        report(part='GPU', name=name, **event)


def _no_gpu(built: str | None, why: str) -> dict[str, str]:
    driver = shutil.which('nvidia-smi') or os.path.exists(
        '/proc/driver/nvidia/version'
    )
    if not driver:
        value = 'none: everything runs on the CPU'
        return {'state': 'note', 'value': value}
    if not built:
        return problem(
            'there is a GPU, but this torch cannot use it',
            'Install the CUDA build of torch: '
            'https://pytorch.org/get-started/locally',
        )
    return problem(
        f'there is a driver, but torch finds no GPU. {why}',
        'nvidia-smi must work, and its driver must be new enough for CUDA '
        f'{built}. In a container: docker run --gpus all. Is '
        'CUDA_VISIBLE_DEVICES empty?',
    )


def _gpu(torch: ModuleType, number: int) -> dict[str, str]:
    found = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    value = (
        f'{found.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, '
        f'sm_{found.major}{found.minor}'
    )
    architectures = torch.cuda.get_arch_list()
    # Code for sm_80 runs on sm_86, and PTX on any newer GPU.
    usable = ('compute_', f'sm_{found.major}')
    if not architectures or any(a.startswith(usable) for a in architectures):
        return {'value': value}
    return problem(
        f'{value}, but torch has code for {", ".join(architectures)}',
        'Install a torch that is built for this GPU: '
        'https://pytorch.org/get-started/locally',
    )


def check_ops() -> None:
    """Reports which implementation of mmcv's ops is used."""
    part = "mmcv's ops"
    try:
        spec = importlib.util.find_spec('mmcv._ext')
        if spec is None:
            event = problem(
                "not compiled, and mmext's ops are not found",
                'import mmext before mmcv.ops, or once: python -m '
                'mmext.mmcv_ext --install',
            )
            report(part=part, name='mmcv._ext', **event)
            return
        ext = importlib.import_module('mmcv._ext')
        if spec.submodule_search_locations is None:
            _report_compiled(part, ext)
            return
        state = importlib.import_module('mmext.mmcv_ext.permanent').state()
    except Exception as error:
        report(part=part, name='mmcv._ext', error=one_line(error))
        return
    report(part=part, name='mmcv._ext', value=f'by mmext, {spec.origin}')
    ops = dict.fromkeys(map(_op, ext.__all__))
    ops.pop('')
    report(part=part, name='implemented', value=', '.join(ops))
    value = 'raise an error that names what to install'
    report(part=part, name='all others', value=value)
    event = {
        'installed': {'value': 'usable: Python finds mmext by itself'},
        'not installed': {'value': 'usable after `import mmext` only'},
        'outdated': problem(
            'the installed finder belongs to another mmext',
            'python -m mmext.mmcv_ext --install',
        ),
    }[state]
    report(part=part, name='without mmext', **event)


def _op(function: str) -> str:
    """Returns the op that a function of ``mmcv._ext`` belongs to."""
    if function.startswith(('get_', 'masked_col')):
        return ''
    for end in ('_forward', '_backward', '_naive', '_input'):
        function = function.partition(end)[0]
    return function.replace('masked_im2col', 'masked_conv')


def _report_compiled(part: str, ext: ModuleType) -> None:
    torch = importlib.import_module('torch')
    report(part=part, name='mmcv._ext', value=f'compiled, {ext.__file__}')
    cuda = ext.get_compiling_cuda_version()
    target = 'the CPU' if cuda == 'not available' else f'CUDA {cuda}'
    value = f'{target}, by {ext.get_compiler_version()}'
    event = {'value': value}
    if cuda == 'not available' and torch.cuda.is_available():
        event = problem(
            f'{value}: the ops do not run on the GPU',
            'Build mmcv again with the CUDA toolkit of torch '
            f'({torch.version.cuda}) and FORCE_CUDA=1 in the environment, or '
            'install it without compiled ops: mmext then provides them.',
        )
    report(part=part, name='built for', **event)


def is_compiled() -> bool:
    """Whether ``mmcv._ext`` is compiled; mmext's is a package."""
    spec = importlib.util.find_spec('mmcv._ext')
    return spec is not None and spec.submodule_search_locations is None


def main() -> None:
    modules = {}
    for name in MODULES:
        modules[name] = try_import(name)
        # Ops that were compiled for another torch crash the process.
        if name == 'mmcv' and modules[name] is not None and is_compiled():
            try_import('mmcv._ext')
    ours = [try_import(name) for name in OURS]
    if modules['torch'] is not None:
        report(start=['GPU', 'devices'])
        check_gpus(modules['torch'])
    if modules['mmcv'] is not None and ours[0] is not None:
        report(start=["mmcv's ops", 'mmcv._ext'])
        check_ops()


if __name__ == '__main__':
    main()
