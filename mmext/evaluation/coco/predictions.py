# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads COCO result files as numbers and checks them.

``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]`` for
boxes, with ``"segmentation"`` for masks. A box takes about 60 bytes.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import hotcoco
import numpy as np
from pycocotools import mask as mask_utils

from mmext.datasets.masks import encode, mask_problems
from mmext.errors import UserError
from mmext.evaluation.coco.formats import COCO, FORMATS, Format, Reader
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.meta import known_classes, read_meta
from mmext.evaluation.coco.plausible import check_plausible, require_coco_boxes
from mmext.evaluation.coco.result_file import read_records, require_memory
from mmext.utils import documents
from mmext.utils.text import count, short, some

_BATCH = 10_000  # records that are converted at once
_COLUMNS = {'image_id': 0, 'bbox': slice(1, 5), 'score': 5, 'category_id': 6}


@dataclass(frozen=True)
class Predictions:
    """The detections of one run on one ground truth.

    Args:
        path: Path of the result file.
        iou_type: ``'bbox'`` or ``'segm'``.
        image_id: (N,) COCO image ids.
        category_id: (N,) COCO category ids.
        box: (N, 4) x, y, width, height in pixels; nan for masks.
        score: (N,) confidence.
        mask: N run-length encodings, or None for boxes.
        warnings: Unusual content for which AP is defined.
    """

    path: Path
    iou_type: str
    image_id: np.ndarray
    category_id: np.ndarray
    box: np.ndarray
    score: np.ndarray
    mask: list[dict] | None = None
    warnings: tuple[str, ...] = ()

    def area(self) -> np.ndarray:
        """(N,) areas of the boxes, or of the masks, in square pixels."""
        if self.mask is None:
            return self.box[:, 2] * self.box[:, 3]
        return np.asarray(hotcoco.mask.area(self.mask), np.float64)

    def select(self, rows: np.ndarray) -> Predictions:
        """Returns the detections of some rows, given as bool or indices."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            image_id=self.image_id[rows],
            category_id=self.category_id[rows],
            box=self.box[rows],
            score=self.score[rows],
            mask=self.mask and [self.mask[r] for r in rows],
        )

    def bounding_boxes(self) -> np.ndarray:
        """(N, 4) x, y, width, height in pixels, of masks too."""
        if self.mask is None:
            return self.box
        return mask_utils.toBbox(self.mask).reshape(-1, 4)

    def records(self) -> list[dict]:
        """Returns the detections as the list in a COCO result file."""
        key, values = 'bbox', self.box.tolist()
        if self.mask is not None:
            key, values = 'segmentation', self.mask
        arrays = (self.image_id, self.category_id, self.score)
        columns = [x.tolist() for x in arrays]
        return [
            {'image_id': i, 'category_id': c, 'score': s, key: v}
            for i, c, s, v in zip(*columns, values, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.score)


@documents.no_garbage_collection()
def read_predictions(
    path: str | Path,
    truth: GroundTruth,
    iou_type: str | None = None,
    file_format: Format = COCO,
) -> Predictions:
    """Reads and checks a result file.

    Args:
        path: The file.
        truth: Ground truth that it belongs to.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'segm'`` if the records
            have masks.
        file_format: Who wrote it. Default: COCO's format.

    Raises:
        UserError: The file is not a result file, is truncated, belongs to
            other images or another ground truth, is too large for the memory
            of this machine, has a value that is not a finite number, a
            negative size or an unknown id, or its boxes are of another
            format.
    """
    path = Path(path)
    meta = read_meta(path)
    tested = meta.get('annotation_sha256')
    if tested and tested != truth.sha256:
        raise UserError(
            f'{path} was made for another ground truth '
            f'({meta.get("annotation_file", "?")}, sha256 {tested[:12]}...; '
            f'here {truth.path}, {truth.sha256[:12]}...)',
            'Compare runs that were tested on the same annotation file.',
        )
    require_memory(path)
    tables = [np.zeros((0, 7))]
    masks: list[dict] = []
    reader = Reader(path, truth, file_format)
    found = read_records(path, any_object=file_format.name != 'coco')
    found, number = reader.records(found), 0
    while batch := [*islice(found, _BATCH)]:
        if iou_type is None:
            iou_type = 'segm' if batch[0].get('segmentation') else 'bbox'
        tables.append(_table(path, number, batch, iou_type))
        if iou_type == 'segm':
            masks += _masks(path, number, batch, truth)
        number += len(batch)
    table = np.concatenate(tables)
    has_masks = iou_type == 'segm'
    table[:, 6] = reader.category_ids(table[:, 6])
    _check(path, table, truth, has_masks)
    kept = _are_in(table[:, 6], truth.category_ids)
    if has_masks:
        masks = [mask for mask, keep in zip(masks, kept, strict=True) if keep]
    table = table[kept]
    return Predictions(
        path=path,
        iou_type=iou_type or 'bbox',
        image_id=table[:, 0].astype(np.int64),
        category_id=table[:, 6].astype(np.int64),
        box=table[:, 1:5],
        score=table[:, 5],
        mask=masks if has_masks else None,
        warnings=(
            *reader.warnings,
            *_warn(path, table, truth, masks if has_masks else None),
            *_check_undetected(path, table, truth, meta),
        ),
    )


def _table(
    path: Path, first: int, records: list[dict], iou_type: str
) -> np.ndarray:
    """(N, 7) numbers of records, in the order of `_COLUMNS`."""
    table = np.full((len(records), 7), np.nan)
    try:
        for name, where in _COLUMNS.items():
            if name != 'bbox':
                table[:, where] = array('d', [r[name] for r in records])
            elif iou_type == 'bbox':
                boxes = [record[name] for record in records]
                if {*map(len, boxes)} != {4}:
                    raise ValueError
                numbers = array('d', chain.from_iterable(boxes))
                table[:, where] = np.reshape(numbers, (-1, 4))
    except (KeyError, OverflowError, TypeError, ValueError):
        for n, record in enumerate(records, first):
            _require_row(path, n, record, iou_type)
        raise
    return table


def _require_row(path: Path, n: int, record: dict, iou_type: str) -> None:
    """Raises if a record has no numbers where they are needed."""
    box = record.get('bbox') if iou_type == 'bbox' else (np.nan,) * 4
    for key in ('image_id', 'category_id'):
        value = record.get(key)
        if isinstance(value, str):
            raise UserError(
                f'{path}: record {n}: {key} {value!r} is not a number',
                'If it is a name, and another trainer wrote the file: '
                f'--format {" or ".join(FORMATS[1:])}.',
            )
    try:
        x, y, w, h = box
        values = (record['image_id'], record['category_id'], record['score'])
        array('d', (x, y, w, h, *values))
    except (KeyError, OverflowError, TypeError, ValueError):
        shape = 'bbox [x, y, w, h]' if iou_type == 'bbox' else 'segmentation'
        raise UserError(
            f'{path}: record {n} is not a {iou_type} detection: '
            f'{short(record, 200)}',
            f'It needs image_id, category_id, score and {shape}. A '
            'comparison has one IoU type.',
        ) from None


def _masks(
    path: Path, first: int, records: list[dict], truth: GroundTruth
) -> list[dict]:
    """Returns the masks of records as compressed RLEs."""
    found = [record.get('segmentation') for record in records]
    sizes = [truth.sizes.get(record['image_id']) for record in records]
    problems = mask_problems(found, sizes)
    codes = []
    for i, (mask, size) in enumerate(zip(found, sizes, strict=True)):
        problem = problems[i]
        try:
            if problem:
                raise ValueError
            codes.append(encode(mask, size))
            if isinstance(mask, list):
                hotcoco.mask.area(codes[-1])  # raises if there is no polygon
        except Exception:  # pycocotools raises Exception itself
            problem = problem and f'; it {problem}'
            raise UserError(
                f'{path}: record {first + i} has no mask that COCO can read: '
                f'{short(mask, 100)}{problem}',
                '"segmentation" is a run-length encoding {size, counts} or a '
                'list of polygons. A comparison has one IoU type.',
            ) from None
    return codes


def _check(
    path: Path, table: np.ndarray, truth: GroundTruth, has_masks: bool
) -> None:
    """Raises an error for the first record for which AP is not defined."""
    found = {name: table[:, where] for name, where in _COLUMNS.items()}
    categories = np.array(list(truth.all_names), np.int64)
    ids = {'image_id': truth.image_ids, 'category_id': categories}
    unknown = {k: ~_are_in(found[k], known) for k, known in ids.items()}
    if len(table) and unknown['image_id'].all():
        raise UserError(
            f'{path} predicts other images: none of its ids (the first is '
            f'{found["image_id"][0]:.16g}) is in {truth.path}',
            'Compare runs that were tested on the same annotation file.',
        )
    tests = [(k, bad, '') for k, bad in unknown.items()]
    finite = np.isfinite(found['score'])
    tests.append(('score', ~finite, 'Scores are finite numbers.'))
    if not has_masks:
        near = (abs(found['bbox']) < 1e15).all(1)
        tests.append(('bbox', ~near, 'Boxes are finite numbers, in pixels.'))
        negative = (found['bbox'][:, 2:] < 0).any(1)
        fix = 'Widths and heights are 0 pixels or more.'
        tests.append(('bbox', negative, fix))
    for name, bad, fix in tests:
        if not bad.any():
            continue
        first, others = int(np.argmax(bad)), int(bad.sum()) - 1
        value = found[name][first].tolist()
        if name in ids:
            nearest = ids[name][np.argmin(abs(ids[name] - value))]
            fix = f'{truth.path} does not list it; the nearest is {nearest}.'
            if name == 'category_id':
                fix += (
                    ' If categories are numbered from 0 or 1: --categories 0 '
                    'or 1.'
                )
            value = f'{value:.16g}'
        more = f' (and {count(others, "other record")} too)' if others else ''
        raise UserError(
            f'{path}: record {first} has {name} {value}{more}', fix
        )


def _are_in(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(N,) whether numbers are among sorted ids; faster than sorting them."""
    if not len(ids):
        return np.zeros(len(values), bool)
    place = np.searchsorted(ids, values).clip(max=len(ids) - 1)
    return ids[place] == values


def _check_undetected(
    path: Path, table: np.ndarray, truth: GroundTruth, meta: dict
) -> list[str]:
    """Warns of classes without detections that a run may not know."""
    if known_classes(truth, meta) or not len(table):
        return []
    objects = {a['category_id'] for a in truth.dataset['annotations']}
    missed = objects.difference(np.unique(table[:, 6]).tolist())
    if not missed:
        return []
    names = [truth.all_names[i] for i in sorted(missed)]
    return [
        f'{path} has no detection of {some(names)}, of which there are '
        'objects: AP 0 counts in the mean. If the detector does not know '
        f'{"it" if len(missed) == 1 else "them"}, name the others: --classes.'
    ]


def _warn(
    path: Path,
    table: np.ndarray,
    truth: GroundTruth,
    masks: list[dict] | None,
) -> list[str]:
    if not len(table):
        return [f'{path} holds no detection at all: every AP is 0.']
    image_id, box = table[:, 0], table[:, 1:5]
    if masks is None:
        require_coco_boxes(path, truth, image_id, box)
    else:
        box = mask_utils.toBbox(masks)
    found = check_plausible(path, truth, image_id, box, table[:, 6])
    if masks is None:
        copies = _count_copies(table)
        if copies:
            found.append(
                f'{path}: {copies} detections are exact copies of another; '
                'COCO counts a copy as a false positive.'
            )
    share = len(np.unique(table[:, 0])) / len(truth.image_ids)
    if share < 0.5:
        found.append(
            f'{path} has detections on only {100 * share:.0f} % of the '
            'images; the objects of the others count as missed. Is the file '
            'complete?'
        )
    return found


def _count_copies(table: np.ndarray) -> int:
    """Returns the number of rows that are equal to one before."""
    # 0.0 and -0.0 are equal. Sorting sums of the bits is faster than sorting
    # rows; few sums are equal by chance.
    odd = np.arange(1, 2 * table.shape[1], 2, np.uint64) * 0x9E3779B97F4A7C15
    sums = (table + 0.0).view(np.uint64) @ odd
    _, place, number = np.unique(sums, return_inverse=True, return_counts=True)
    rows = table[number[place] > 1]
    return len(rows) - len(np.unique(rows, axis=0))
