# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Mends modules that gave up on ``mmcv.ops`` before it could be imported.

The OneDL builds wrap imports from mmcv.ops in ``try``: without compiled ops
they bind a function or class of the same name that only raises. Whatever was
imported before mmext keeps these, so Mask R-CNN would fail long after the
ops have become available.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

OPS = 'mmcv.ops'


def _host_modules() -> Iterator[ModuleType]:
    """Loaded modules of packages built on mmcv: mmdet, mmseg and so on."""
    for name, module in list(sys.modules.items()):
        package = name.partition('.')[0]
        if package.startswith('mm') and package != 'mmext':
            yield module


def _guarded(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Imports from mmcv.ops that stand in a ``try`` of a module.

    Yields:
        The name bound, the module it comes from and its name there.
    """
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return
    if OPS not in source:
        return
    for node in ast.parse(source).body:
        for line in node.body if isinstance(node, ast.Try) else ():
            if isinstance(line, ast.ImportFrom) and (
                line.module or ''
            ).startswith(OPS):
                for alias in line.names:
                    bound = alias.asname or alias.name
                    yield bound, line.module, alias.name


def mend() -> list[str]:
    """Binds the real ops where an import of them has failed before.

    Returns:
        What was mended, as ``module.name``.

    Raises:
        ImportError: If a class was already derived from an error stub.
    """
    if OPS in sys.modules:  # its import succeeded, so nobody gave up
        return []
    mended, stubs = [], {}
    for module in _host_modules():
        for bound, source, name in _guarded(module):
            op = getattr(import_module(source), name)
            stub = vars(module).get(bound)
            if stub is op:
                continue
            if isinstance(stub, type) and stub.__subclasses__():
                child = stub.__subclasses__()[0]
                raise ImportError(
                    f'{child.__module__}.{child.__qualname__} was derived '
                    f'from {bound} before mmcv.ops could be imported. Import '
                    'mmext before it, or make the ops permanent for this '
                    'environment: python -m mmext.mmcv_ext --install'
                )
            setattr(module, bound, op)
            mended.append(f'{module.__name__}.{bound}')
            if stub is not None:
                stubs[id(stub)] = op
    # A stub may have been handed on to other modules.
    for module in _host_modules() if stubs else ():
        for bound, value in list(vars(module).items()):
            if id(value) in stubs:
                setattr(module, bound, stubs[id(value)])
                mended.append(f'{module.__name__}.{bound}')
    return mended
