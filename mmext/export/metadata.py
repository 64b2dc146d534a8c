# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What an exported file says about itself, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmext.errors import UserError, printable
from mmext.export.preparation import Preparation
from mmext.utils.text import short


@dataclass(frozen=True)
class Metadata:
    """What an exported file says about itself.

    Args:
        classes: The name of each label.
        preparation: What is done to an image before.
        size: Height and width of the only images that the file takes.
            Default: any.
        multiple: Height and width must be multiples of it. Default: 1.
        masks: The kind of masks, see :mod:`mmext.export.masks`. Default:
            none.
        about: The model, its normalisation and test settings, hashes of
            checkpoint and config, versions. Nothing depends on it.
    """

    classes: tuple[str, ...]
    preparation: Preparation
    size: tuple[int, int] | None = None
    multiple: int = 1
    masks: Mapping[str, Any] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """Returns the text that :func:`parse` reads."""
        return json.dumps(asdict(self))


def parse(text: str | bytes | None, path: object) -> Metadata:
    """Reads the metadata of a file, which may be of anyone.

    Raises:
        UserError: There are none, or not those that mmext writes.
    """
    again = 'Use a file that mmext export wrote; it runs no other model.'
    if not text:
        raise UserError(f'{path} has no metadata of mmext', again)
    try:
        found = json.loads(text)
        how = found['preparation']
        preparation = Preparation(
            _pair(how['resize']),
            bool(how['keep_ratio']),
            _pair(how['pad']),
            float(how['pad_value']),
        )
        masks = found['masks']
        if masks is not None:
            masks = {
                'kind': {'box': 'box', 'image': 'image'}[masks['kind']],
                'threshold': float(masks['threshold']),
                'stride': _natural(masks.get('stride', 1)),
            }
        return Metadata(
            tuple(map(printable, found['classes'])),
            preparation,
            _pair(found['size']),
            _natural(found['multiple']),
            masks,
            dict(found['about']),
        )
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f'the metadata of {path} are not those of mmext: '
            f'{type(error).__name__}: {short(str(error))}',
            again,
        ) from error


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**16:
        raise ValueError(f'{short(value)} is not a number of pixels')
    return value


def _pair(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    first, second = map(_natural, value)
    return first, second
