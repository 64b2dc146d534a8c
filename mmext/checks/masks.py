# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the masks in a COCO annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmext.checks.findings import Finding, Split
from mmext.datasets.coco import is_number


def check_masks(content: dict[str, Any], split: Split) -> Iterator[Finding]:
    """Checks that every mask that is there can be decoded for its image."""
    images = {image['id']: image for image in content['images']}
    unusable, broken = [], []
    for annotation in content['annotations']:
        mask = annotation.get('segmentation') or []
        image = images.get(annotation['image_id'])
        if isinstance(mask, dict):
            problem = _rle_problem(mask, image) if image else ''
        else:
            problem = _polygon_problem(mask, image)
        if problem:
            broken.append((annotation, problem))
        elif isinstance(mask, list) and not all(map(is_polygon, mask)):
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


def is_polygon(coordinates: list[float]) -> bool:
    """Returns whether COCO can draw it: 3 points or more, x and y of each."""
    return len(coordinates) >= 6 and len(coordinates) % 2 == 0


def _polygon_problem(mask: list, image: dict | None) -> str:
    if not all(isinstance(polygon, list) for polygon in mask):
        return 'is not a list of polygons'
    values = [v for polygon in mask for v in polygon]
    if not all(map(is_number, values)):
        return 'has a coordinate that is not a number'
    if image is None:
        return ''
    # pycocotools walks along every edge, and would use all memory.
    length = max(image['width'], image['height'])
    for value in values:
        if not -length <= value <= 2 * length:
            size = f'{image["width"]:g} x {image["height"]:g}'
            return f'has a coordinate of {value:g} in an image of {size}'
    return ''


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

    Source: ``rleFrString`` of pycocotools' ``maskApi.c``, which would write
    beyond the mask if the string is damaged; this returns None.
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
