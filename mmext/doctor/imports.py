# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A script: imports the packages one by one and says what it finds.

Each line that starts with ``doctor:`` is JSON, see ``processes.py``. It must
run with any of the packages missing or broken.
"""

import importlib
import importlib.util
import json
import os
import shutil
import sys
import traceback
import warnings

PART = 'Imports'
MODULES = ('numpy', 'torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmdet')


def say(**event):
    print('\ndoctor: ' + json.dumps(event), flush=True)


def told(error):
    """Type and text of an error in one line."""
    if os.environ.get('MMEXT_DEBUG', '0') not in ('', '0'):
        traceback.print_exception(error, file=sys.stderr)
    # mmext's own errors carry the remedy, which the doctor has as well.
    text = ' '.join(str(getattr(error, 'problem', error)).split())
    return f'{type(error).__name__}: {text}'


def try_import(name):
    say(start=[PART, name])
    try:
        module = importlib.import_module(name)
    # A broken package raises anything, SystemExit included.
    except BaseException as error:
        say(part=PART, name=name, error=told(error))
        return None
    version = getattr(module, '__version__', '')
    where = os.path.dirname(getattr(module, '__file__', None) or '')
    say(part=PART, name=name, value=f'{version} {where}'.strip())
    return module


def examine_gpu(torch):
    part = 'GPU'
    driver = shutil.which('nvidia-smi') or os.path.exists(
        '/proc/driver/nvidia/version'
    )
    built = torch.version.cuda or getattr(torch.version, 'hip', None)
    say(part=part, name='torch is built for', value=built or 'the CPU')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if not available:
        why = ' '.join(str(w.message) for w in caught)
        if driver and not built:
            say(
                part=part,
                name='devices',
                state='problem',
                value='there is a GPU, and this torch cannot use it',
                remedy='Install the CUDA build of torch: '
                'https://pytorch.org/get-started/locally',
            )
        elif driver:
            say(
                part=part,
                name='devices',
                state='problem',
                value=f'there is a driver, and torch sees no GPU. {why}',
                remedy='nvidia-smi must work and its driver must be new '
                f'enough for CUDA {built}; in a container: docker run --gpus '
                'all; is CUDA_VISIBLE_DEVICES empty?',
            )
        else:
            say(
                part=part,
                name='devices',
                state='note',
                value='none: everything runs on the CPU',
            )
        return
    archs = torch.cuda.get_arch_list()
    for i in range(torch.cuda.device_count()):
        name = f'device {i}'
        try:
            found = torch.cuda.get_device_properties(i)
            free, total = torch.cuda.mem_get_info(i)
        except RuntimeError as error:
            say(part=part, name=name, error=told(error))
            continue
        arch = f'{found.major}{found.minor}'
        value = (
            f'{found.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB '
            f'free, sm_{arch}'
        )
        # Code for sm_80 runs on sm_86, and PTX on anything newer.
        fits = any(
            a.startswith(('compute_', f'sm_{found.major}')) for a in archs
        )
        if fits or not archs:
            say(part=part, name=name, value=value)
        else:
            say(
                part=part,
                name=name,
                state='problem',
                value=f'{value}, and torch has code for {", ".join(archs)}',
                remedy='Install a torch that is built for this GPU: '
                'https://pytorch.org/get-started/locally',
            )


def examine_ops():
    part = "mmcv's ops"
    try:
        spec = importlib.util.find_spec('mmcv._ext')
        if spec is None:
            say(
                part=part,
                name='mmcv._ext',
                state='problem',
                value='not compiled, and mmext does not stand in',
                remedy='import mmext before mmcv.ops, or once: python -m '
                'mmext.mmcv_ext --install',
            )
            return
        if spec.submodule_search_locations is None:
            examine_compiled(part, importlib.import_module('mmcv._ext'))
            return
        ext = importlib.import_module('mmcv._ext')
        permanent = importlib.import_module('mmext.mmcv_ext.permanent')
        state = permanent.state()
    except Exception as error:
        say(part=part, name='mmcv._ext', error=told(error))
        return
    say(part=part, name='mmcv._ext', value=f'mmext stands in, {spec.origin}')
    ops = {}
    for name in ext.__all__:
        for end in ('_forward', '_backward', '_naive', '_input'):
            name = name.partition(end)[0]
        if not name.startswith('get_') and not name.startswith('masked_col'):
            ops[name.replace('masked_im2col', 'masked_conv')] = None
    say(part=part, name='implemented', value=', '.join(ops))
    say(
        part=part,
        name='all others',
        value='raise when they are called, with what to install',
    )
    outdated = state == 'outdated'
    say(
        part=part,
        name='without mmext',
        state='problem' if outdated else 'ok',
        value={
            'installed': 'usable: mmext is found by itself',
            'outdated': 'the installed finder is of another mmext',
        }.get(state, 'after `import mmext` only'),
        remedy='python -m mmext.mmcv_ext --install' if outdated else '',
    )


def examine_compiled(part, ext):
    torch = importlib.import_module('torch')
    say(part=part, name='mmcv._ext', value=f'compiled, {ext.__file__}')
    cuda = ext.get_compiling_cuda_version()
    for_cpu = cuda == 'not available'
    value = (
        f'{"the CPU" if for_cpu else f"CUDA {cuda}"}, by '
        f'{ext.get_compiler_version()}'
    )
    if for_cpu and torch.cuda.is_available():
        say(
            part=part,
            name='built for',
            state='problem',
            value=f'{value}: its ops do not run on the GPU that is here',
            remedy='Build mmcv anew with the CUDA toolkit of torch '
            f'({torch.version.cuda}) and FORCE_CUDA=1 in the environment, or '
            'install it without compiled ops: mmext then stands in.',
        )
    else:
        say(part=part, name='built for', value=value)


def is_compiled():
    """Before mmext is imported, whose stand-in is a package."""
    spec = importlib.util.find_spec('mmcv._ext')
    return spec is not None and spec.submodule_search_locations is None


def main():
    modules = {}
    for name in MODULES:
        modules[name] = try_import(name)
        # One that is built for another torch ends whoever imports it.
        if name == 'mmcv' and modules[name] is not None and is_compiled():
            try_import('mmcv._ext')
    mmext = try_import('mmext')
    if modules['torch'] is not None:
        say(start=['GPU', 'devices'])
        examine_gpu(modules['torch'])
    if modules['mmcv'] is not None and mmext is not None:
        say(start=["mmcv's ops", 'mmcv._ext'])
        examine_ops()


if __name__ == '__main__':
    main()
