# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO annotations, checked before they judge anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmext.datasets.coco import is_number
from mmext.errors import UserError

_SECTIONS = ('images', 'annotations', 'categories')
_LARGEST_ID = 2**53


@dataclass(frozen=True)
class GroundTruth:
    """A COCO annotation file.

    Args:
        path: Where it was read.
        sha256: Of the file's bytes: what makes two runs comparable.
        dataset: The parsed file.
        image_ids: (I,) sorted.
        category_ids: (K,) sorted.
        names: K class names.
    """

    path: Path
    sha256: str
    dataset: dict
    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]

    @cached_property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """Height and width of every image that states them."""
        return {
            r['id']: (int(r['height']), int(r['width']))
            for r in self.dataset['images']
            if all(
                is_number(r.get(k)) and r[k] >= 1 for k in ('height', 'width')
            )
        }

    @cached_property
    def warnings(self) -> list[str]:
        """What is odd and yet has a defined AP."""
        if all(a['id'] for a in self.dataset['annotations']):
            return []
        return [
            f'{self.path} has an annotation of id 0. pycocotools, and so '
            'mmdet, counts its object as missed even where it is found; here '
            'it counts as any other. Number annotations from 1.'
        ]

    def numbered(self, iou_type: str) -> dict:
        """A dataset for hotcoco: ids are places in the sorted ids.

        hotcoco takes no negative ids, and is strict about fields that do not
        matter; only what COCO evaluates is here, images in order.

        Args:
            iou_type: ``'segm'`` keeps the masks.

        Raises:
            UserError: ``'segm'``, and an object has no mask.
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
                record['segmentation'] = self._mask(i, ann)
            annotations.append(record)
        images = [{'id': i} for i in place.values()]
        for image_id, (height, width) in self.sizes.items():
            images[place[image_id]] |= {'height': height, 'width': width}
        return {
            'images': images,
            'annotations': annotations,
            'categories': [
                {'id': i, 'name': name} for i, name in enumerate(self.names)
            ],
        }

    def _mask(self, i: int, ann: dict) -> list | dict:
        mask = ann.get('segmentation')
        polygons = isinstance(mask, list)
        good = (
            mask and isinstance(mask[0], list) and len(mask[0]) >= 6
            if polygons
            else isinstance(mask, dict) and {'counts', 'size'} <= mask.keys()
        )
        where = f'{self.path}: annotations[{i}] (id {ann["id"]})'
        if not good:
            raise UserError(
                f'{where} has no mask: segmentation {str(mask)[:60]}',
                'Masks are judged by masks; compare boxes: --iou-type bbox.',
            )
        if polygons and ann['image_id'] not in self.sizes:
            raise UserError(
                f'{where} has polygons on image {ann["image_id"]}, whose '
                'height and width "images" does not say'
            )
        return mask

    def __repr__(self) -> str:
        return f'GroundTruth({self.path}, {len(self.image_ids)} images)'


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Reads and checks a COCO annotation file.

    Raises:
        UserError: Not there, not JSON, not COCO, ids that name nothing or
            occur twice, an object without a usable box or area.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        dataset = json.loads(data)
    except FileNotFoundError:
        raise UserError(
            f'no annotation file {path}', 'Give a COCO file with --ann.'
        ) from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f'{path} is not a JSON file ({error})') from None
    missing = [
        s
        for s in _SECTIONS
        if not isinstance(dataset, dict)
        or not isinstance(dataset.get(s), list)
    ]
    if missing:
        raise UserError(
            f'{path} is not a COCO annotation file: no list '
            f'{", ".join(map(repr, missing))}',
            'It needs "images", "annotations" and "categories".',
        )
    for section in ('images', 'categories'):
        if not dataset[section]:
            raise UserError(
                f'{path} has no {section}, so there is nothing to evaluate'
            )
    images = _ids(path, 'images', dataset['images'])
    categories = _ids(path, 'categories', dataset['categories'])
    _ids(path, 'annotations', dataset['annotations'])
    _check(path, dataset['annotations'], set(images), set(categories))
    order = np.argsort(categories)
    return GroundTruth(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        dataset=dataset,
        image_ids=np.sort(np.array(images, np.int64)),
        category_ids=np.array(categories, np.int64)[order],
        names=tuple(
            str(dataset['categories'][i].get('name', categories[i]))
            for i in order
        ),
    )


def _ids(path: Path, section: str, records: list) -> list[int]:
    ids = [r.get('id') if isinstance(r, dict) else None for r in records]
    for i, value in enumerate(ids):
        if type(value) is not int or abs(value) > _LARGEST_ID:
            raise UserError(
                f'{path}: {section}[{i}] has id {value!r}',
                'An id is a whole number up to 2^53, which JSON can carry.',
            )
    if len(set(ids)) < len(ids):
        seen: set[int] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))
        raise UserError(f'{path}: id {twice} occurs twice in {section}')
    return ids


def _check(
    path: Path, annotations: list[dict], images: set, categories: set
) -> None:
    for i, ann in enumerate(annotations):
        where = f'{path}: annotations[{i}] (id {ann["id"]})'
        image, category = ann.get('image_id'), ann.get('category_id')
        if type(image) not in (int, float) or image not in images:
            raise UserError(
                f'{where} is on image {image!r}, which "images" does not list'
            )
        if type(category) not in (int, float) or category not in categories:
            raise UserError(
                f'{where} has category {category!r}, which "categories" does '
                'not list'
            )
        box = ann.get('bbox')
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(map(is_number, box))
            or min(box[2:]) < 0
        ):
            raise UserError(
                f'{where} has bbox {box!r}',
                'A box is [x, y, width, height] in pixels, sizes >= 0.',
            )
        area = ann.get('area')
        if not is_number(area) or area < 0:
            raise UserError(
                f'{where} has area {area!r}',
                'COCO decides small, medium and large by "area", in pixels.',
            )
        if ann.get('iscrowd', 0) not in (0, 1):
            raise UserError(
                f'{where} has iscrowd {ann["iscrowd"]!r}',
                'It is 1 for a crowd, which is not counted, and 0 otherwise.',
            )
