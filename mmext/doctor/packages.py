# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks which packages are installed, by their metadata alone.

The OneDL builds and OpenMMLab's own install the same modules, so an
environment can have one or the other. The versions that mmext requires are
read from its metadata; :data:`TESTED` lists those that it was tested with.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from importlib import metadata

from mmext.doctor.result import NOTE, OK, PROBLEM, Result

PART = 'Packages'
STACKS = {
    'onedl': ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'),
    'openmmlab': ('mmengine', 'mmcv', 'mmcv-lite', 'mmdet'),
}
# Tested together on Python 3.11.
TESTED = {
    'onedl-mmengine': ('0.10.12',),
    'onedl-mmcv': ('2.3.6',),
    'onedl-mmdetection': ('3.5.1',),
    'mmengine': ('0.10.7',),
    'mmcv-lite': ('2.1.0',),
    'mmdet': ('3.3.0',),
    'torch': ('2.13', '2.14', '2.15'),
    'torchvision': ('0.29',),
    'numpy': ('2.2', '2.4'),
}
OTHERS = ('mmext', 'torch', 'torchvision', 'numpy', 'pycocotools', 'hotcoco')


def installed() -> dict[str, str]:
    """Returns the versions of all distributions by normalised name."""
    return {
        re.sub(r'[-_.]+', '-', d.metadata['Name']).lower(): d.version
        for d in metadata.distributions()
        if d.metadata['Name']
    }


def _stacks(have: Iterable[str]) -> dict[str, list[str]]:
    """Returns the installed packages of each stack that has any."""
    present = {
        s: [n for n in names if n in have] for s, names in STACKS.items()
    }
    return {stack: names for stack, names in present.items() if names}


def install_line() -> str:
    """Returns the command that installs the stack that is in use."""
    stack = (
        'openmmlab' if list(_stacks(installed())) == ['openmmlab'] else 'onedl'
    )
    return f"In mmext's checkout: pip install -e '.[{stack}]'"


def check_packages() -> Iterator[Result]:
    """Checks versions, and combinations of packages."""
    have = installed()
    stacks = _stacks(have)
    yield _stack(stacks)
    wanted = {}
    if len(stacks) == 1:
        wanted = _requirements(next(iter(stacks)))
    for name in [*OTHERS, *itertools.chain(*stacks.values())]:
        yield _version(name, have.get(name), wanted.get(name))
    setuptools = have.get('setuptools', '0')
    if list(stacks) == ['openmmlab'] and int(setuptools.split('.')[0]) >= 82:
        value = f'{setuptools} has no pkg_resources, which mmengine imports'
        fix = "pip install 'setuptools<82'"
        yield Result(PART, 'setuptools', PROBLEM, value, fix)
    yield from _torchvision(have)
    if {'mmcv', 'mmcv-lite'} <= have.keys():
        value = 'mmcv and mmcv-lite install the same modules'
        fix = (
            'pip uninstall -y mmcv-lite && pip install --force-reinstall '
            f'--no-deps mmcv=={have["mmcv"]}'
        )
        yield Result(PART, 'mmcv', PROBLEM, value, fix)


def _stack(stacks: dict[str, list[str]]) -> Result:
    if len(stacks) == 1:
        return Result(PART, 'stack', OK, next(iter(stacks)))
    if stacks:
        both = list(itertools.chain(*stacks.values()))
        value = f'both: {", ".join(both)}. They install the same modules'
        fix = (
            f"pip uninstall -y {' '.join(both)}; then, in mmext's checkout, "
            "pip install -e '.[onedl]'"
        )
    else:
        value = 'neither the OneDL builds nor OpenMMLab'
        fix = install_line()
    return Result(PART, 'stack', PROBLEM, value, fix)


def _requirements(stack: str) -> dict[str, str]:
    """Returns mmext's requirements in its metadata by package name."""
    try:
        lines = metadata.requires('mmext') or []
    except metadata.PackageNotFoundError:
        return {}
    wanted = {}
    for line in lines:
        text, _, marker = line.partition(';')
        if not marker or f'"{stack}"' in marker.replace("'", '"'):
            name = re.match(r'[\w.-]+', text)[0]
            wanted[name.lower()] = text.strip()
    return wanted


def _version(name: str, version: str | None, wanted: str | None) -> Result:
    if version is None:
        return Result(PART, name, PROBLEM, 'not installed', install_line())
    if wanted and not _satisfies(version, wanted):
        value = f'{version}, but mmext needs {wanted}'
        return Result(PART, name, PROBLEM, value, f"pip install '{wanted}'")
    tested = TESTED.get(name, ())
    if tested and not any(f'{version}.'.startswith(f'{t}.') for t in tested):
        value = f'{version}; tested: {", ".join(tested)}'
        return Result(PART, name, NOTE, value)
    return Result(PART, name, OK, version)


def _satisfies(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:
            from pip._vendor.packaging.requirements import Requirement
        except ImportError:
            return True
    specifier = Requirement(requirement).specifier
    return specifier.contains(version, prereleases=True)


def _torchvision(have: dict[str, str]) -> Iterator[Result]:
    """Checks torchvision, whose ops are built for one version of torch."""
    if not {'torch', 'torchvision'} <= have.keys():
        return
    for line in metadata.requires('torchvision') or []:
        wanted = line.partition(';')[0].strip()
        if re.match(r'torch\b(?!vision)', wanted) and not _satisfies(
            have['torch'], wanted
        ):
            value = (
                f'{have["torchvision"]} needs {wanted}, and torch is '
                f'{have["torch"]}'
            )
            fix = 'pip install --upgrade torch torchvision'
            yield Result(PART, 'torchvision', PROBLEM, value, fix)
