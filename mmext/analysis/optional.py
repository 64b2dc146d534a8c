# Licensed under the Apache License, Version 2.0. See LICENSE.
"""scikit-learn, which only some of the experiments need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mmext.errors import UserError


def sklearn(module: str) -> ModuleType:
    """A module of scikit-learn, such as ``'svm'``.

    Raises:
        UserError: Where scikit-learn is not installed.
    """
    try:
        return import_module(f'sklearn.{module}')
    except ImportError as error:
        raise UserError(
            f'This experiment needs scikit-learn: {error}.',
            'pip install scikit-learn',
        ) from error
