# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The formats of exported files: one module writes and opens each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import numpy as np

from mmext.errors import UserError

#: Value of ``--format`` -> suffix.
SUFFIXES = {'onnx': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}
#: Value of ``--format`` -> what else the weights can be stored as.
PRECISIONS = {
    'onnx': ('fp16', 'int8'),
    'torch': ('bf16',),
    'openvino': ('fp16', 'int8'),
}
#: The entry of a file that holds its metadata.
KEY = 'mmext'
#: The outputs of a file; only some detectors have masks.
NAMES = ('boxes', 'scores', 'labels', 'masks')
#: From images (B, 3, H, W) to boxes, scores, labels and maybe masks.
Network = Callable[[np.ndarray], Sequence[np.ndarray]]


def module_of(suffix: str) -> ModuleType:
    """Returns the module of a suffix, which has ``open_file``."""
    name = {v: k for k, v in SUFFIXES.items()}[suffix]
    return import_module(f'mmext.export.formats.{name}_format')


def required(name: str, extra: str = 'export') -> ModuleType:
    """Imports a package of an extra."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f'the package {name} is not installed',
            f"pip install 'mmext[{extra}]' installs it.",
        ) from error
