# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What was tested, and how, as ``tools/test.py`` writes it into a meta file.

A key that is missing means that it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmext.datasets.coco import is_number
from mmext.utils.text import some

Meta = Mapping[str, Any]


@dataclass(frozen=True)
class Complexity:
    """The cost of one image.

    Args:
        params: Number of parameters, with frozen ones.
        flops: Multiply-adds of one forward pass; None if it failed.
        shape: Height and width in pixels, after padding.
        uncounted: Operators that compute something and have no formula, with
            the number of calls.
        note: Why ``flops`` is None.
    """

    params: int
    flops: int | None
    shape: tuple[int, int]
    uncounted: dict[str, int]
    note: str = ''


#: Key in the meta file's ``test`` -> its heading in a table.
SETTINGS = {
    'scale': 'scale',
    'tta': 'TTA',
    'score_thr': 'score threshold',
    'max_per_img': 'max detections',
}


def cost_of(model: Mapping[str, Any]) -> Complexity | None:
    """Returns the cost that a test wrote about its model, None if unknown."""
    params, flops, shape, uncounted, note = (
        model.get(key)
        for key in ('params', 'flops', 'shape', 'uncounted', 'note')
    )
    if not (isinstance(shape, list) and len(shape) == 2):
        return None
    if not all(map(is_number, (params, flops or 0, *shape))):
        return None
    names = uncounted if isinstance(uncounted, dict) else {}
    return Complexity(params, flops, tuple(shape), names, str(note or ''))


def uses_tta(meta: Meta) -> bool:
    """Returns whether a test is known to have used test-time augmentation."""
    return bool((meta.get('test') or {}).get('tta'))


def identity(meta: Meta, name: str) -> tuple:
    """Returns what tells two tests apart; ``name`` if nothing is known."""
    keys = ('checkpoint_sha256', 'annotation_sha256', 'test')
    known = (meta.get('checkpoint') or name, *(meta.get(k) for k in keys))
    return tuple(map(str, known))


def settings(meta: Meta) -> dict[str, str]:
    """Returns the known settings of a test: heading -> value in words."""
    test = meta.get('test') or {}
    return {
        heading: in_words(test[key])
        for key, heading in SETTINGS.items()
        if test.get(key) is not None
    }


def checkpoint_name(meta: Meta) -> str | None:
    """Returns the name of the tested checkpoint without its folders."""
    name = meta.get('checkpoint')
    return Path(str(name)).name if name else None


def in_words(value: object) -> str:
    """Returns ``'128x96'`` for [[128, 96]], ``'yes'``, ``'0.05'``."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, list):
        scales = (
            'x'.join(map(_number, scale))
            if isinstance(scale, list)
            else str(scale)
            for scale in value
        )
        return some(scales)
    return _number(value)


def _number(value: object) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)
