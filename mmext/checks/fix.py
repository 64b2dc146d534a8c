# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Corrects annotations that can be corrected in one way only.

Corners become COCO's x, y, width, height; boxes are cut at the edge of the
image and dropped if nothing is left; entries without their image or category
and images that cannot be read are removed; sizes are taken from the files and
areas from the masks; repeated annotation ids get new numbers; the categories
of validation get the order of the training data.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmext.checks.annotations import Entries
from mmext.checks.findings import Split
from mmext.checks.images import image_paths, size_problem
from mmext.checks.report import DataReport
from mmext.errors import UserError
from mmext.utils.files import write_json


def fixed_files(splits: Sequence[Split], out: Path) -> dict[str, Path]:
    """Returns where the corrected copy of each split would be written.

    Args:
        splits: The splits.
        out: Folder for the copies.

    Raises:
        UserError: A file of that name exists already.
    """
    files: dict[str, Path] = {}
    for split in splits:
        name = split.ann_file.name
        if out / name in files.values():
            name = f'{split.ann_file.parent.name}_{name}'
        files[split.name] = out / name
        if files[split.name].exists():
            raise UserError(
                f'{files[split.name]} exists already',
                'Give --fix a new folder.',
            )
    return files


def write_fixed(
    report: DataReport, files: Mapping[str, Path]
) -> dict[Path, dict[str, int]]:
    """Writes a corrected copy of every annotation file that needs one.

    Args:
        report: See :func:`~mmext.checks.splits.check_splits`.
        files: See :func:`fixed_files`; its folder is made.

    Returns:
        File that was written -> what was done, and how often.
    """
    first = next((s for s in report.splits if s.training), report.splits[0])
    names = [c['name'] for c in report.contents[first.name]['categories']]
    written = {}
    for split in report.splits:
        content, done = _fix(report, split)
        by_name = {c['name']: c for c in content['categories']}
        if by_name.keys() == set(names):
            ordered = [by_name[name] for name in names]
            if ordered != content['categories']:
                content['categories'] = ordered
                done['categories put in the order of the training data'] = 1
        if done:
            file = files[split.name]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, content)
            written[file] = dict(done)
    return written


def _fix(report: DataReport, split: Split) -> tuple[dict[str, Any], Counter]:
    """Returns corrected annotations of a split, and what was done."""
    content = copy.deepcopy(report.contents[split.name])
    done: Counter = Counter()
    _fix_images(content, report, split, done)
    _drop_orphans(content, done)
    _renumber(content, done)
    _fix_boxes(content, done)
    _fix_areas(content, done)
    return content, +done


def _fix_images(
    content: dict[str, Any], report: DataReport, split: Split, done: Counter
) -> None:
    facts = report.facts
    unusable = {p for p, fact in facts.items() if fact.problem}
    unusable |= report.missing
    paths = {i['file_name']: p for p, i in image_paths(content, split).items()}
    if unusable >= set(paths.values()):
        return  # the folder is wrong, not the annotation file
    seen: dict[int, dict] = {}
    kept = []
    for image in content['images']:
        if paths.get(image['file_name']) in unusable:
            done['images removed that are missing or unreadable'] += 1
        elif image == seen.get(image['id']):
            done['repeated image entries removed'] += 1
        else:
            seen[image['id']] = image
            kept.append(image)
    content['images'] = kept
    entries = Entries(content)
    for image in kept:
        fact = facts.get(paths.get(image['file_name']))
        if fact is None:
            continue
        size = fact.size(split.turned)
        problem = size_problem(fact, image, split.turned)
        if problem in ('none', 'exchanged') and _boxes_fit(
            entries, image['id'], size
        ):
            image['width'], image['height'] = size
            done['image sizes taken from the files'] += 1


def _boxes_fit(entries: Entries, image_id: int, size: tuple[int, int]) -> bool:
    mine = [a['image_id'] == image_id for a in entries.annotations]
    boxes = entries.boxes[mine]
    return bool((boxes[:, :2] + boxes[:, 2:] <= np.add(size, 1)).all())


def _drop_orphans(content: dict[str, Any], done: Counter) -> None:
    images = {i['id'] for i in content['images']}
    categories = {c['id'] for c in content['categories']}
    kept = [
        a
        for a in content['annotations']
        if a['image_id'] in images and a['category_id'] in categories
    ]
    done['annotations removed of images or categories not listed'] += len(
        content['annotations']
    ) - len(kept)
    content['annotations'] = kept


def _renumber(content: dict[str, Any], done: Counter) -> None:
    last = max((a['id'] for a in content['annotations']), default=0)
    seen = set()
    for annotation in content['annotations']:
        if annotation['id'] in seen:
            last += 1
            annotation['id'] = last
            done['annotation ids made unique'] += 1
        seen.add(annotation['id'])


def _fix_boxes(content: dict[str, Any], done: Counter) -> None:
    entries = Entries(content)
    if entries.as_fractions:
        return
    if entries.as_corners:
        for annotation in entries.annotations:
            x1, y1, x2, y2 = annotation['bbox']
            annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            done['boxes turned from corners to x, y, width, height'] += 1
        entries = Entries(content)
    if (entries.degenerate | entries.outside).all():
        return  # more is wrong than a few boxes
    kept = []
    for i, annotation in enumerate(entries.annotations):
        if entries.degenerate[i] or entries.outside[i]:
            done['boxes removed that have no area in their image'] += 1
            continue
        if entries.over_edge[i]:
            x, y, w, h = annotation['bbox']
            width, height = entries.sizes[i].tolist()
            left, top = max(x, 0), max(y, 0)
            annotation['bbox'] = [
                left,
                top,
                min(x + w, width) - left,
                min(y + h, height) - top,
            ]
            if not annotation.get('segmentation'):
                annotation.pop('area', None)
            done['boxes cut at the edge of their image'] += 1
        kept.append(annotation)
    content['annotations'] = kept


def _fix_areas(content: dict[str, Any], done: Counter) -> None:
    images = {image['id']: image for image in content['images']}
    for annotation in content['annotations']:
        if annotation.get('area', 0) <= 0:
            image = images[annotation['image_id']]
            annotation['area'] = _area(annotation, image)
            done['areas computed'] += 1


def _area(annotation: dict[str, Any], image: dict[str, Any]) -> float:
    mask = annotation.get('segmentation')
    if isinstance(mask, list):
        polygons = [p for p in mask if len(p) >= 6 and len(p) % 2 == 0]
        if polygons:
            coded = rle.frPyObjects(polygons, image['height'], image['width'])
            return float(rle.area(rle.merge(coded)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])
