# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Files of results by image that ``mmext test`` writes beside a COCO file's.

``<name>.mIoU.npz`` has those of MMSegmentation's models, ``<name>.top1.npz``
those of MMPretrain's; see :mod:`mmext.utils.arrays`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmext.errors import UserError
from mmext.evaluation.semantic import Areas
from mmext.evaluation.top1 import KEPT, Labels
from mmext.utils.arrays import read_arrays, write_arrays

KIND = 'mmext-image-results'
VERSION = 1
_FIX = 'Write it again: mmext test CONFIG CHECKPOINT.'

#: Results of images that are no detections, and their names.
Found = tuple[Areas | Labels, tuple[str, ...]]


def write_image_results(
    path: str | Path, results: Areas | Labels, images: Sequence[str]
) -> None:
    """Writes results and the names of their images, in the same order."""
    description = {
        'task': results.task,
        'classes': results.names,
        'images': images,
    }
    write_arrays(path, KIND, VERSION, description, arrays_of(results))


def read_image_results(path: str | Path) -> Found:
    """Reads what `write_image_results` has written.

    Raises:
        UserError: The file is of another kind or damaged, or its parts do
            not fit each other.
    """
    description, arrays = read_arrays(path, KIND, VERSION, _FIX)
    task, names, images = (
        description.get(key) for key in ('task', 'classes', 'images')
    )
    for key, values in (('classes', names), ('images', images)):
        require_texts(path, key, values, _FIX)
    results = from_arrays(path, task, names, len(images), arrays, _FIX)
    return results, tuple(images)


def arrays_of(results: Areas | Labels) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of these results."""
    if isinstance(results, Areas):
        return {'pixels': results.pixels}
    return {'label': results.label, 'predicted': results.predicted}


def from_arrays(
    path: str | Path,
    task: str,
    names: Sequence[str],
    images: int,
    arrays: Mapping[str, np.ndarray],
    fix: str,
) -> Areas | Labels:
    """Returns the results in the arrays of a file.

    Raises:
        UserError: The arrays do not fit each other.
    """
    found = {k: v.astype(np.int64) for k, v in arrays.items()}
    classes = len(names)
    if task == 'mIoU':
        pixels = take(path, found, 'pixels', (images, classes, 3), fix)
        hit, *both = np.moveaxis(pixels, 2, 0)
        require_fit(path, (hit <= np.minimum(*both)).all(), fix)
        require_fit(path, pixels.min(initial=0) >= 0, fix)
        return Areas(tuple(names), pixels)
    label = take(path, found, 'label', (images,), fix)
    predicted = take(path, found, 'predicted', (images, None), fix)
    require_fit(path, predicted.shape[1] in (1, KEPT), fix)
    for values, least in ((label, 0), (predicted, -1)):
        inside = (values >= least) & (values < classes)
        require_fit(path, inside.all(), fix)
    return Labels(tuple(names), label, predicted)


def take(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    fix: str,
) -> np.ndarray:
    """Returns an array of a file.

    Raises:
        UserError: There is none of this name, or it has another shape; None
            is any size.
    """
    if name not in arrays:
        raise UserError(f'{path} has no array {name!r}', fix)
    found = arrays[name].shape
    fits = len(found) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found, strict=True)
    )
    if not fits:
        wanted = ' x '.join('any' if x is None else str(x) for x in shape)
        raise UserError(
            f'{path}: its parts do not fit each other: {name} has shape '
            f'{" x ".join(map(str, found))}, and not {wanted}',
            fix,
        )
    return arrays[name]


def require_fit(path: str | Path, fits: bool | np.bool_, fix: str) -> None:
    """Raises `UserError` if a file refers to what it does not have."""
    if not fits:
        raise UserError(
            f'{path}: its parts do not fit each other: a number is out of '
            'range',
            fix,
        )


def require_texts(
    path: str | Path, key: str, values: object, fix: str
) -> None:
    """Raises `UserError` if ``values`` is no list of texts."""
    if not isinstance(values, list) or not all(
        isinstance(value, str) for value in values
    ):
        raise UserError(f'{path}: {key} is no list of texts', fix)
