# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Replaces the error stubs of modules that were imported without mmcv's ops.

The OneDL builds wrap imports from ``mmcv.ops`` in ``try``. Without the ops
they define a function or class of the same name that only raises. Modules
that were imported before mmext keep these stubs, so Mask R-CNN would fail
although the ops have become available.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

OPS = 'mmcv.ops'


def _host_modules() -> Iterator[ModuleType]:
    """Yields loaded modules of packages built on mmcv: mmdet, mmseg, ..."""
    for name, module in list(sys.modules.items()):
        package = name.partition('.')[0]
        if package.startswith('mm') and package != 'mmext':
            yield module


def _guarded_imports(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Yields imports from mmcv.ops inside of ``try`` statements.

    As the name in the module, the module imported from and the name there.
    """
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return
    if OPS not in source:
        return
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Try):
            continue
        for line in node.body:
            if isinstance(line, ast.ImportFrom) and (
                line.module or ''
            ).startswith(OPS):
                for alias in line.names:
                    name = alias.asname or alias.name
                    yield name, line.module, alias.name


def replace_stubs() -> list[str]:
    """Binds the real ops where an earlier import of them failed.

    Returns the replaced names, as ``module.name``.
    """
    if OPS in sys.modules:  # its import succeeded, so there are no stubs
        return []
    replaced, ops = [], {}
    for module in _host_modules():
        for name, source, original in _guarded_imports(module):
            op = getattr(import_module(source), original)
            stub = vars(module).get(name)
            if stub is op:
                continue
            if isinstance(stub, type) and stub.__subclasses__():
                child = stub.__subclasses__()[0]
                raise ImportError(
                    f'{child.__module__}.{child.__qualname__} was derived '
                    f'from {name} before mmcv.ops could be imported. Import '
                    'mmext before it, or make the ops permanent for this '
                    'environment: python -m mmext.mmcv_ext --install'
                )
            setattr(module, name, op)
            replaced.append(f'{module.__name__}.{name}')
            if stub is not None:
                ops[id(stub)] = op
    # Other modules may have imported a stub from those.
    for module in _host_modules() if ops else ():
        for name, value in list(vars(module).items()):
            if id(value) in ops:
                setattr(module, name, ops[id(value)])
                replaced.append(f'{module.__name__}.{name}')
    return replaced
