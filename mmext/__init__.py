# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones for MMDetection, and reports of the AP that they gain.

A config needs one line to use any class of mmext::

    custom_imports = dict(imports=['mmext'], allow_failed_imports=False)

``import mmext`` imports neither torch nor MMDetection: MMEngine's registries
import a class when a config names it; see :mod:`mmext.hosts`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmext import hosts
from mmext.errors import MissingPackagesError, UserError
from mmext.version import __version__

hosts.install()

#: Function or class -> the module that defines it, imported on first use.
_FUNCTIONS = {
    'Detector': 'mmext.export.detector',
    'check_data': 'mmext.checks.data',
    'compare': 'mmext.evaluation.compare',
    'evaluate': 'mmext.evaluation.evaluate',
    'export_detector': 'mmext.export.write',
    'predict': 'mmext.engine.predict',
    'publish': 'mmext.checkpoints.publish',
    'test': 'mmext.engine.launch',
    'train': 'mmext.engine.launch',
}

__all__ = ['UserError', '__version__', *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        try:
            return getattr(import_module(_FUNCTIONS[name]), name)
        except ModuleNotFoundError as error:
            if MissingPackagesError.explains(error):
                raise MissingPackagesError from error
            raise
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
