# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Groups of test images that resemble each other, such as frames of a scene.

If images of a group are drawn one by one, intervals are too narrow: with ten
frames a scene, equally good detectors differed at 5 % in 16 % of comparisons.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.utils.text import count, short, some


def read_groups(spec: str | Path, truth: GroundTruth) -> np.ndarray:
    """Returns a number for each image, equal for images of one group.

    Args:
        spec: A field of the images in the annotation file (``video_id``); a
            regular expression that finds the group in ``file_name``, its
            first parenthesis or all that it matches (``'^(.+)_'``); or a CSV
            file with a line ``image,group`` for each image, which is given by
            its id or file name.
        truth: The ground truth.

    Returns:
        (I,) integers, in the order of ``truth.image_ids``.

    Raises:
        UserError: An image has no group, or there are fewer than two groups,
            or none has two images.
    """
    records = sorted(truth.dataset['images'], key=lambda r: r['id'])
    if str(spec).lower().endswith('.csv'):
        names = _from_csv(Path(spec), records)
    elif re.fullmatch(r'\w+', str(spec)):
        names = _from_field(str(spec), records, truth)
    else:
        names = _from_pattern(str(spec), records)
    if None in names:
        record = records[names.index(None)]
        raise UserError(
            f'groups {spec}: image {record["id"]} '
            f'({record.get("file_name", "no file name")}) has no group',
            'Every image needs one. A group may have a single image.',
        )
    found, group = np.unique(names, return_inverse=True)
    if not 1 < len(found) < len(names):
        raise UserError(
            f'groups {spec}: {count(len(found), "group")} of '
            f'{count(len(names), "image")}',
            'Give at least two groups, of which one has several images.',
        )
    return group


def named_images(names: Sequence[str], path: str | Path) -> SimpleNamespace:
    """Returns images without an annotation file, for :func:`read_groups`."""
    images = [{'id': i, 'file_name': n} for i, n in enumerate(names)]
    return SimpleNamespace(dataset={'images': images}, path=path)


def _from_field(
    key: str, records: list[dict], truth: GroundTruth
) -> list[str | None]:
    names = [record.get(key) for record in records]
    if any(name is not None for name in names):
        return [name if name is None else str(name) for name in names]
    have = sorted({k for record in records for k in record} - {'id'})
    raise UserError(
        f'groups {key}: no image of {truth.path} has this field',
        did_you_mean(key, have)
        or f'They have: {some(have, 12)}. A pattern needs a parenthesis.',
    )


def _from_pattern(pattern: str, records: list[dict]) -> list[str | None]:
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise UserError(
            f'groups {short(pattern)} is not a regular expression ({error})',
            "Give one such as '^(.+)_', a field, or a CSV file.",
        ) from None
    found = [search(str(r.get('file_name', ''))) for r in records]
    return [m and m[min(1, len(m.groups()))] for m in found]


def _from_csv(path: Path, records: list[dict]) -> list[str | None]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'groups {path} cannot be read ({error})',
            'Give a CSV file with a line "image,group" for each image.',
        ) from None
    table: dict[str, str] = {}
    for n, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f'groups {path}: row {n} has {count(len(row), "column")}',
                'Give two: the image (its id or file name) and its group.',
            )
        image, name = (cell.strip() for cell in row)
        if table.setdefault(image, name) != name:
            raise UserError(
                f'groups {path}: image {image} is in {table[image]} and '
                f'{name}',
                'Give each image one group.',
            )
    return [
        table.get(str(r.get('file_name')), table.get(str(r['id'])))
        for r in records
    ]
