# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which packages are installed, by their metadata alone.

The OneDL builds and OpenMMLab's own install the same modules: an environment
has one or the other. The versions that mmext asks for are those in its own
metadata; those it was tried with stand in ``TRIED``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from .findings import NOTE, OK, PROBLEM, Finding

PART = 'Packages'
STACKS = {
    'onedl': ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'),
    'openmmlab': ('mmengine', 'mmcv', 'mmcv-lite', 'mmdet'),
}
# Tried together on Python 3.11; what else works, nobody has seen yet.
TRIED = {
    'onedl-mmengine': ('0.10.12',),
    'onedl-mmcv': ('2.3.6',),
    'onedl-mmdetection': ('3.5.1',),
    'mmengine': ('0.10.7',),
    'mmcv-lite': ('2.1.0',),
    'mmdet': ('3.3.0',),
    'torch': ('2.13', '2.15'),
    'torchvision': ('0.29',),
    'numpy': ('2.2', '2.4'),
}
OTHERS = ('mmext', 'torch', 'torchvision', 'numpy', 'pycocotools', 'hotcoco')


def installed() -> dict[str, str]:
    """Versions of all distributions, by normalised name."""
    return {
        re.sub(r'[-_.]+', '-', d.metadata['Name']).lower(): d.version
        for d in metadata.distributions()
        if d.metadata['Name']
    }


def install_line() -> str:
    """What brings everything, in the stack that is there already."""
    have = installed()
    stack = 'onedl'
    if any(n in have for n in STACKS['openmmlab']) and not any(
        n in have for n in STACKS['onedl']
    ):
        stack = 'openmmlab'
    return f"In mmext's checkout: pip install -e '.[{stack}]'"


def examine_packages() -> Iterator[Finding]:
    """Versions, and sets of them that do not go together."""
    have = installed()
    ours = {s: [n for n in names if n in have] for s, names in STACKS.items()}
    used = [stack for stack, names in ours.items() if names]
    yield _stack(used, ours)
    wanted = _requirements(used[0]) if len(used) == 1 else {}
    names = [*OTHERS, *(n for stack in used for n in ours[stack])]
    for name in names:
        yield _version(name, have.get(name), wanted.get(name))
    if used == ['openmmlab'] and _number(have.get('setuptools', '0')) >= 82:
        yield Finding(
            PART,
            'setuptools',
            PROBLEM,
            f'{have["setuptools"]} has no pkg_resources, which mmengine '
            'imports',
            "pip install 'setuptools<82'",
        )
    yield from _torchvision(have)
    if {'mmcv', 'mmcv-lite'} <= have.keys():
        yield Finding(
            PART,
            'mmcv',
            PROBLEM,
            'mmcv and mmcv-lite install the same modules',
            'pip uninstall -y mmcv-lite && pip install --force-reinstall '
            f'--no-deps mmcv=={have["mmcv"]}',
        )


def _stack(used: list[str], ours: dict[str, list[str]]) -> Finding:
    if len(used) == 1:
        return Finding(PART, 'stack', OK, used[0])
    if not used:
        return Finding(
            PART,
            'stack',
            PROBLEM,
            'neither the OneDL builds nor OpenMMLab',
            install_line(),
        )
    both = [name for names in ours.values() for name in names]
    return Finding(
        PART,
        'stack',
        PROBLEM,
        f'both: {", ".join(both)}. They install the same modules',
        f"pip uninstall -y {' '.join(both)}; then, in mmext's checkout, "
        "pip install -e '.[onedl]'",
    )


def _requirements(stack: str) -> dict[str, str]:
    """What mmext's metadata asks for: name -> the requirement."""
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


def _version(name: str, version: str | None, wanted: str | None) -> Finding:
    if version is None:
        return Finding(PART, name, PROBLEM, 'not installed', install_line())
    if wanted and not _satisfies(version, wanted):
        return Finding(
            PART,
            name,
            PROBLEM,
            f'{version}, but mmext needs {wanted}',
            f"pip install '{wanted}'",
        )
    tried = TRIED.get(name, ())
    if tried and not any(_starts(version, t) for t in tried):
        return Finding(
            PART, name, NOTE, f'{version}; tried: {", ".join(tried)}'
        )
    return Finding(PART, name, OK, version)


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


def _starts(version: str, prefix: str) -> bool:
    return version == prefix or version.startswith(prefix + '.')


def _number(version: str) -> int:
    return int(re.match(r'\d+', version)[0])


def _torchvision(have: dict[str, str]) -> Iterator[Finding]:
    """torchvision's ops are built for some versions of torch only."""
    if not {'torch', 'torchvision'} <= have.keys():
        return
    for line in metadata.requires('torchvision') or []:
        wanted = line.partition(';')[0].strip()
        if re.match(r'torch\b(?!vision)', wanted) and not _satisfies(
            have['torch'], wanted
        ):
            yield Finding(
                PART,
                'torchvision',
                PROBLEM,
                f'{have["torchvision"]} needs {wanted}, and torch is '
                f'{have["torch"]}',
                'pip install --upgrade torch torchvision',
            )
