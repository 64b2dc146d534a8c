# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO annotations as ground truth."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mmext.datasets.coco import (
    is_number,
    parse_coco,
    read_bytes,
    repeated,
)
from mmext.datasets.masks import mask_problems
from mmext.errors import UserError, printable
from mmext.utils.text import count, short, some


@dataclass(frozen=True)
class GroundTruth:
    """A COCO annotation file.

    Args:
        path: Path of the file.
        sha256: Of the file's bytes. Runs can be compared if they were tested
            on files with the same SHA-256.
        dataset: The parsed file.
        image_ids: (I,) sorted.
        category_ids: (K,) sorted.
        names: K class names.
        all_names: Id -> name of all categories of the file, sorted by id;
            see `of_classes`.
    """

    path: Path
    sha256: str
    dataset: dict
    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    all_names: dict[int, str]

    @cached_property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """Image id -> (height, width), if the file has them."""
        return {
            r['id']: (int(r['height']), int(r['width']))
            for r in self.dataset['images']
            if all(
                is_number(r.get(k)) and r[k] >= 1 for k in ('height', 'width')
            )
        }

    @cached_property
    def warnings(self) -> list[str]:
        """Unusual content for which AP is defined."""
        annotations = self.dataset['annotations']
        found = []
        if not all(a['id'] for a in annotations):
            found.append(
                f'{self.path} has an annotation of id 0. pycocotools, and so '
                'mmdet, counts its object as missed even if it was found; '
                'here it counts like any other. Number annotations from 1.'
            )
        if again := repeated(self.dataset, masks=True):
            found.append(
                f'{self.path} lists {count(len(again), "object")} twice, of '
                f'{len(annotations)}: annotation {again[0]["id"]} is the '
                'first. At most half of such a pair can be found, so AP is '
                'too low. mmext check-data --fix DIR writes a corrected copy.'
            )
        names = Counter(self.names)
        if several := [name for name in names if names[name] > 1]:
            found.append(
                f'{self.path} has several categories of the name '
                f'{some(several)}. A detection of one on an object of the '
                'other counts as wrong.'
            )
        return found

    def of_classes(self, names: Collection[str]) -> GroundTruth:
        """Returns the ground truth of some classes, on all images.

        `read_predictions` skips the detections of the others.
        """
        kept = {i: n for i, n in self.all_names.items() if n in names}
        anns, categories = (
            self.dataset[key] for key in ('annotations', 'categories')
        )
        dataset = {
            **self.dataset,
            'annotations': [a for a in anns if a['category_id'] in kept],
            'categories': [c for c in categories if c['id'] in kept],
        }
        return replace(
            self,
            dataset=dataset,
            category_ids=np.array([*kept], np.int64),
            names=tuple(kept.values()),
        )

    def numbered(self, iou_type: str) -> dict:
        """Returns a dataset for hotcoco, with indices in place of ids.

        hotcoco accepts no negative ids and checks fields that do not matter
        here, so the result has only what COCO evaluates. The id of an image
        or category is its index in the sorted ids. ``'segm'`` keeps the
        masks.

        Raises:
            UserError: ``iou_type`` is ``'segm'`` and an object has no mask.
        """
        place = {int(v): i for i, v in enumerate(self.image_ids)}
        category = {int(v): i for i, v in enumerate(self.category_ids)}
        annotations = []
        for i, ann in enumerate(self.dataset['annotations']):
            record = {
                'id': i + 1,
                'image_id': place[ann['image_id']],
                'category_id': category[ann['category_id']],
                'bbox': ann['bbox'],
                'area': ann['area'],
                'iscrowd': int(ann.get('iscrowd', 0)),
            }
            if iou_type == 'segm':
                record['segmentation'] = self.masks[i]
            annotations.append(record)
        images = [{'id': i} for i in place.values()]
        for image_id, (height, width) in self.sizes.items():
            images[place[image_id]] |= {'height': height, 'width': width}
        return {
            'images': images,
            'annotations': annotations,
            'categories': [
                # hotcoco takes UTF-8 only, and draws the names.
                {'id': i, 'name': printable(name)[:100]}
                for i, name in enumerate(self.names)
            ],
        }

    @cached_property
    def masks(self) -> list[list | dict]:
        """The masks of the annotations: polygons or run-length encodings."""
        annotations = self.dataset['annotations']
        problems = mask_problems(
            [ann.get('segmentation') for ann in annotations],
            [self.sizes.get(ann['image_id']) for ann in annotations],
        )
        return [
            self._mask(i, ann, problem)
            for i, (ann, problem) in enumerate(
                zip(annotations, problems, strict=True)
            )
        ]

    def _mask(self, i: int, ann: dict, problem: str) -> list | dict:
        mask = ann.get('segmentation')
        size = self.sizes.get(ann['image_id'])
        where = f'{self.path}: annotations[{i}] (id {ann["id"]})'
        if isinstance(mask, list):
            good = mask and isinstance(mask[0], list) and len(mask[0]) >= 6
        else:
            good = isinstance(mask, dict) and {'counts', 'size'} <= mask.keys()
        if not good:
            raise UserError(
                f'{where} has no mask: segmentation is {short(mask)}',
                'Add the mask, or compare boxes: --iou-type bbox.',
            )
        if isinstance(mask, list) and size is None:
            raise UserError(
                f'{where} has polygons on image {ann["image_id"]}, which has '
                'no height and width in "images"'
            )
        if problem:
            raise UserError(
                f'{where} has a mask that {problem}',
                'Export the masks again, or compare boxes: --iou-type bbox.',
            )
        return mask


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Reads and checks a COCO annotation file.

    Raises:
        UserError: The file does not exist or is not a COCO annotation file,
            an id is unknown or occurs twice, or an object has no valid box or
            area; see :func:`mmext.datasets.coco.parse_coco`.
    """
    data = read_bytes(path)
    dataset = parse_coco(data, path, strict=True)
    categories = sorted(dataset['categories'], key=lambda c: c['id'])
    names = {c['id']: str(c.get('name', c['id'])) for c in categories}
    return GroundTruth(
        path=Path(path),
        sha256=hashlib.sha256(data).hexdigest(),
        dataset=dataset,
        image_ids=np.array(
            sorted(i['id'] for i in dataset['images']), np.int64
        ),
        category_ids=np.array([*names], np.int64),
        names=tuple(names.values()),
        all_names=names,
    )
