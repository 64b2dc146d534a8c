# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a checkpoint stores of the training data, to notice other data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from mmext.utils.files import sha256


def describe_data(dataset: Any) -> dict[str, Any]:
    """Returns the number of images and the SHA-256 of annotation files.

    The folder of the data does not count, and images are not read.
    """
    images = len(dataset) if hasattr(dataset, '__len__') else None
    return {'images': images, 'annotations': sorted(_hashes(dataset))}


def _hashes(dataset: Any) -> Iterator[str]:
    file = getattr(dataset, 'ann_file', None)
    if isinstance(file, str) and os.path.isfile(file):
        yield sha256(file)
    inner = getattr(dataset, 'dataset', None)  # a wrapper
    for one in (inner, *(getattr(dataset, 'datasets', None) or ())):
        if one is not None:
            yield from _hashes(one)
