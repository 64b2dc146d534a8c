# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be wrong with the masks of a COCO annotation file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmext.checks.findings import ERROR, WARNING, Finding, Split
from mmext.datasets.coco import is_number


def check_masks(content: dict, split: Split) -> Iterator[Finding]:
    """Whether every mask that is there can be decoded for its image."""
    images = {image['id']: image for image in content['images']}
    unusable, broken = [], []
    for annotation in content['annotations']:
        mask = annotation.get('segmentation')
        if not mask:
            continue  # told by check_classes
        image = images.get(annotation['image_id'])
        if isinstance(mask, dict):
            problem = image and _rle_problem(mask, image)
            if problem:
                broken.append((annotation, problem))
        elif not all(isinstance(polygon, list) for polygon in mask):
            broken.append((annotation, 'is not a list of polygons'))
        elif not all(is_number(v) for polygon in mask for v in polygon):
            broken.append((annotation, 'has a coordinate that is no number'))
        elif image and (far := _far_outside(mask, image)) is not None:
            # pycocotools walks along every edge: it would take all memory.
            size = f'{image["width"]:g} x {image["height"]:g}'
            text = f'has a coordinate of {far:g} in an image of {size}'
            broken.append((annotation, text))
        elif not all(len(p) >= 6 and len(p) % 2 == 0 for p in mask):
            unusable.append(annotation)
    if broken:
        annotation, problem = broken[0]
        yield split.finding(
            ERROR,
            'masks',
            f'{len(broken)} of {len(content["annotations"])} masks cannot '
            'be read: that of annotation '
            f'{annotation["id"]} {problem}',
            'Export the masks again, or remove these annotations.',
            count=len(broken),
        )
    if unusable:
        yield split.finding(
            WARNING,
            'masks',
            f'{len(unusable)} of {len(content["annotations"])} masks have a '
            'polygon of fewer than 3 points '
            f'(the first: annotation {unusable[0]["id"]}); mmdet drops such '
            'polygons, and the object with its last one',
            'Redraw them.',
            count=len(unusable),
        )


def _far_outside(mask: list, image: dict) -> float | None:
    """A coordinate more than an image's length away from the image."""
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
            return 'has RLE counts that are no whole numbers'
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
    """Run lengths of COCO's compressed RLE; None for a torn string.

    Source: ``rleFrString`` of pycocotools' ``maskApi.c``, which trusts its
    input and would write beyond the mask.
    """
    try:
        data = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64)
    except UnicodeEncodeError:
        return None
    data -= 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return None
    # Groups of five bits, the lowest first; 32 says that more follow.
    last = np.flatnonzero((data & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(first, last - first + 1)
    if place.max() > 11:
        return None
    runs = np.add.reduceat((data & 31) << (5 * place), first)
    negative = (data[last] & 16) != 0
    runs -= np.where(negative, 1 << (5 * (last - first + 1)), 0)
    # From the fourth on a run is the difference to the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
