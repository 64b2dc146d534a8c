# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the masks in a COCO annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmext.checks.findings import Finding, Split
from mmext.datasets.coco import is_number


def check_masks(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    """Checks that every mask can be decoded for its image.

    :func:`~mmext.checks.classes.check_classes` reports missing masks.
    """
    images = {image['id']: image for image in content['images']}
    unusable, broken = [], []
    for annotation in content['annotations']:
        mask = annotation.get('segmentation')
        if not mask:
            continue
        image = images.get(annotation['image_id'])
        if isinstance(mask, dict):
            problem = image and _rle_problem(mask, image)
            if problem:
                broken.append((annotation, problem))
        elif not all(isinstance(polygon, list) for polygon in mask):
            broken.append((annotation, 'is not a list of polygons'))
        elif not all(is_number(v) for polygon in mask for v in polygon):
            broken.append(
                (annotation, 'has a coordinate that is not a number')
            )
        elif image and (far := _far_outside(mask, image)) is not None:
            # pycocotools would use all memory: it walks along every edge.
            size = f'{image["width"]:g} x {image["height"]:g}'
            text = f'has a coordinate of {far:g} in an image of {size}'
            broken.append((annotation, text))
        elif not all(len(p) >= 6 and len(p) % 2 == 0 for p in mask):
            unusable.append(annotation)
    if broken:
        annotation, problem = broken[0]
        yield split.error(
            'masks',
            f'{len(broken)} of {len(content["annotations"])} masks cannot '
            f'be read: that of annotation {annotation["id"]} {problem}',
            'Export the masks again, or remove these annotations.',
            count=len(broken),
        )
    if unusable:
        yield split.warning(
            'masks',
            f'{len(unusable)} of {len(content["annotations"])} masks have a '
            'polygon of fewer than 3 points (the first: annotation '
            f'{unusable[0]["id"]}); mmdet drops such polygons, and an object '
            'that has no other',
            'Draw them again.',
            count=len(unusable),
        )


def _far_outside(mask: list, image: dict) -> float | None:
    """Returns a coordinate more than an image's length from the image."""
    length = max(image['width'], image['height'])
    for value in (v for polygon in mask for v in polygon):
        if not -length <= value <= 2 * length:
            return value
    return None


def _rle_problem(mask: dict, image: dict) -> str:
    size, counts = mask.get('size'), mask.get('counts')
    if size != [image['height'], image['width']]:
        return (
            f'is an RLE of size {size} in an image of height and width '
            f'{[image["height"], image["width"]]}'
        )
    if isinstance(counts, list):
        if not all(type(n) is int and n >= 0 for n in counts):
            return 'has RLE counts that are not whole numbers'
        pixels = sum(counts)
    elif isinstance(counts, str):
        runs = rle_runs(counts)
        if runs is None or (runs < 0).any():
            return 'has RLE counts that cannot be decoded'
        pixels = int(runs.sum())
    else:
        return 'is an RLE without counts'
    if pixels != size[0] * size[1]:
        return f'is an RLE of {pixels} pixels in an image of {size}'
    return ''


def rle_runs(counts: str) -> np.ndarray | None:
    """Returns the run lengths of COCO's compressed RLE.

    Source: ``rleFrString`` of pycocotools' ``maskApi.c``, which does not
    check its input and would write beyond the mask.

    Returns:
        None if the string is damaged.
    """
    try:
        data = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64)
    except UnicodeEncodeError:
        return None
    data -= 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return None
    # Groups of five bits, the lowest first; bit 32 marks all but the last.
    last = np.flatnonzero((data & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(first, last - first + 1)
    if place.max() > 11:
        return None
    runs = np.add.reduceat((data & 31) << (5 * place), first)
    negative = (data[last] & 16) != 0
    runs -= np.where(negative, 1 << (5 * (last - first + 1)), 0)
    # From the fourth on, a run is stored as the difference to the run before
    # the previous one.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
