# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads what ``mmext test`` wrote beside a prediction file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.utils import documents
from mmext.utils.text import short

#: Types of what the meta file says.
_META = {
    **dict.fromkeys(('annotation_file', 'annotation_sha256'), str),
    **dict.fromkeys(('checkpoint', 'checkpoint_sha256', 'config_name'), str),
    **dict.fromkeys(('categories', 'metrics', 'test'), dict),
    'seed': int,
}


def read_meta(path: str | Path) -> dict:
    """Reads what ``mmext test`` wrote beside a prediction file.

    ``<name>.bbox.json`` and ``<name>.segm.json`` share ``<name>.meta.json``,
    which stands beside ``<name>.mIoU.npz`` and ``<name>.top1.npz`` too.
    The result is empty if there is no such file.

    Raises:
        UserError: The file is not a JSON object, or a value is of another
            type.
    """
    path = Path(path)
    kinds = r'(\.(bbox|segm))?\.json$|\.(mIoU|top1)\.npz$'
    stem = re.sub(kinds, '', path.name)
    meta = path.with_name(f'{stem}.meta.json')
    if not os.path.exists(meta):
        return {}
    content = documents.parse_json(documents.read_bytes(meta), meta)
    fix = 'Write it again: mmext test CONFIG CHECKPOINT.'
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f'{meta} is a {kind}, not a JSON object', fix)
    for key, kind in _META.items():
        value = content.get(key)
        # What is not known is null, false or empty.
        if value and not isinstance(value, kind):
            raise UserError(
                f'{meta}: {key} is {short(value)}, not a {kind.__name__}', fix
            )
    return content


def known_classes(truth: GroundTruth, meta: dict) -> frozenset[str]:
    """Returns the classes that a run knows; none if ``meta`` names none."""
    names = meta.get('categories')
    if not isinstance(names, dict):
        return frozenset()
    return frozenset(map(str, names.values())) & {*truth.all_names.values()}
