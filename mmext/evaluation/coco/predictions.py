# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO result files, read record by record and checked.

``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]`` for
boxes, with ``"segmentation"`` for masks. A file of any size is read in pieces
of 16 MiB and held as numbers, about 60 bytes a box.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hotcoco
import numpy as np
from pycocotools import mask as mask_utils

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import GroundTruth

_PIECE = 16 << 20
_GAP = re.compile(r'[\s,]*')


@dataclass(frozen=True)
class Predictions:
    """Detections of one run on one ground truth.

    Args:
        path: Where they were read.
        iou_type: ``'bbox'`` or ``'segm'``.
        image_id: (N,) COCO image ids.
        category_id: (N,) COCO category ids.
        box: (N, 4) x, y, width, height in pixels; nan for masks.
        score: (N,) confidence.
        mask: N run-length encodings, or None for boxes.
        meta: What testing wrote beside the file (seed, config, versions...).
        warnings: What is odd and yet has a defined AP.
    """

    path: Path
    iou_type: str
    image_id: np.ndarray
    category_id: np.ndarray
    box: np.ndarray
    score: np.ndarray
    mask: list[dict] | None = None
    meta: dict = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def area(self) -> np.ndarray:
        """(N,) box areas, or mask areas where there are masks."""
        if self.mask is None:
            return self.box[:, 2] * self.box[:, 3]
        if not self.mask:
            return np.zeros(0)
        return np.asarray(hotcoco.mask.area(self.mask), np.float64)

    def __len__(self) -> int:
        return len(self.score)


def read_meta(path: str | Path) -> dict:
    """What ``tools/test.py`` wrote beside a prediction file, or nothing.

    ``<name>.bbox.json`` and ``<name>.segm.json`` share ``<name>.meta.json``.

    Raises:
        UserError: The side file is there and no JSON object.
    """
    path = Path(path)
    stem = re.sub(r'(\.(bbox|segm))?\.json$', '', path.name)
    meta = path.with_name(f'{stem}.meta.json')
    if not meta.exists():
        return {}
    try:
        content = json.loads(meta.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{meta} is not a JSON file ({error})') from None
    if not isinstance(content, dict):
        raise UserError(
            f'{meta} is a {type(content).__name__}, not a JSON object',
            'Write it again: tools/test.py CONFIG CHECKPOINT.',
        )
    return content


def read_predictions(
    path: str | Path, truth: GroundTruth, iou_type: str | None = None
) -> Predictions:
    """Reads and checks a COCO result file.

    Args:
        path: The file.
        truth: What it predicts.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'segm'`` where the
            records carry masks.

    Raises:
        UserError: Not a result file, cut off, made for other images or
            another ground truth, a value that is no number, a negative size,
            an unknown id, too big for this machine.
    """
    path = Path(path)
    meta = read_meta(path)
    seen = meta.get('annotation_sha256')
    if seen and seen != truth.sha256:
        raise UserError(
            f'{path} was made for another ground truth '
            f'({meta.get("annotation_file", "?")}, sha256 {seen[:12]}...; '
            f'here {truth.path}, {truth.sha256[:12]}...)',
            'Compare runs tested on one annotation file.',
        )
    _refuse_too_big(path)
    columns: list[tuple] = []
    masks: list[dict] = []
    arrays = []
    for n, record in enumerate(_records(path)):
        if iou_type is None:
            iou_type = 'segm' if record.get('segmentation') else 'bbox'
        columns.append(_row(path, n, record, iou_type))
        if iou_type == 'segm':
            masks.append(_mask(path, n, record, truth))
        if len(columns) == 100_000:
            arrays.append(np.array(columns, float))
            columns = []
    arrays.append(np.array(columns, float).reshape(-1, 7))
    table = np.concatenate(arrays)
    _check(path, table, truth)
    warnings = _warn(path, table, truth)
    return Predictions(
        path=path,
        iou_type=iou_type or 'bbox',
        image_id=table[:, 0].astype(np.int64),
        category_id=table[:, 6].astype(np.int64),
        box=table[:, 1:5],
        score=table[:, 5],
        mask=masks if iou_type == 'segm' else None,
        meta=meta,
        warnings=tuple(warnings),
    )


def _refuse_too_big(path: Path) -> None:
    """A box takes about half its text; leave room to sort."""
    try:
        size = path.stat().st_size
        free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return  # no such file is told later; other systems do not say
    if size > 1 << 30 and 2 * size > free:
        raise UserError(
            f'{path} has {size / 1e9:.1f} GB and this machine '
            f'{free / 1e9:.1f} GB of free memory',
            'Keep the 100 best detections an image (COCO counts no more of '
            'a class), or raise the score threshold, and test again.',
        )


def _records(path: Path) -> Iterator[dict]:
    """The objects of a JSON array, without holding the array."""
    try:
        stream = path.open(encoding='utf-8', errors='replace')
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f'no prediction file {path}') from None
    decoder = json.JSONDecoder()
    with stream:
        text = stream.read(_PIECE)
        start = _GAP.match(text).end()
        if text[start : start + 1] != '[':
            raise not_predictions(path, text[:100_000])
        at, count, last = start + 1, 0, False
        while True:
            at = _GAP.match(text, at).end()
            if text[at : at + 1] == ']':
                return
            try:
                record, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                piece = stream.read(_PIECE) if not last else ''
                if not piece:
                    raise UserError(
                        f'{path} is cut off or not JSON after record '
                        f'{count} ({error.msg})',
                        'Write it again: tools/test.py CONFIG CHECKPOINT.',
                    ) from None
                text, at = text[at:] + piece, 0
                continue
            if not isinstance(record, dict):
                raise UserError(
                    f'{path}: record {count} is {record!r}, not a detection'
                )
            yield record
            count += 1


def not_predictions(path: Path, text: str) -> UserError:
    """What a file that is no list is instead, as an error to raise."""
    if re.search(r'mAP|"AP"|precision"', text):
        return UserError(
            f'{path} holds metrics, averages over all images',
            'An interval needs the detections: give the work folder, or '
            'predictions/*.bbox.json that tools/test.py wrote in it.',
        )
    if '"annotations"' in text or '"images"' in text:
        return UserError(
            f'{path} is a COCO annotation file, not detections',
            'Give it with --ann, and the detections as the run.',
        )
    return UserError(
        f'{path} is not a COCO result file: it does not begin with "["',
        'It is a JSON list of {image_id, category_id, bbox, score}.',
    )


def _row(path: Path, n: int, record: dict, iou_type: str) -> tuple:
    box = record.get('bbox') if iou_type == 'bbox' else (np.nan,) * 4
    try:
        x, y, w, h = box
        return (
            *(float(record['image_id']), float(x), float(y), float(w)),
            *(float(h), float(record['score'])),
            float(record['category_id']),
        )
    except (KeyError, OverflowError, TypeError, ValueError):
        raise UserError(
            f'{path}: record {n} is no {iou_type} detection: '
            f'{str(record)[:200]}',
            'It needs image_id, category_id, score and '
            + ('bbox [x, y, w, h].' if iou_type == 'bbox' else 'segmentation.')
            + ' A comparison has one IoU type.',
        ) from None


def _mask(path: Path, n: int, record: dict, truth: GroundTruth) -> dict:
    mask, size = (
        record.get('segmentation'),
        truth.sizes.get(record['image_id']),
    )
    try:
        if isinstance(mask, list):  # polygons
            code = mask_utils.merge(mask_utils.frPyObjects(mask, *size))
        elif isinstance(mask['counts'], list):
            code = mask_utils.frPyObjects(mask, *mask['size'])
        else:
            code = {'size': mask['size'], 'counts': mask['counts']}
        if size and tuple(code['size']) != size:
            raise ValueError
        hotcoco.mask.area(code)  # raises where the code is broken
        return code
    except Exception:  # pycocotools raises bare ones
        raise UserError(
            f'{path}: record {n} has no mask that COCO can read: '
            f'{str(mask)[:100]}',
            'A comparison has one IoU type; "segmentation" is a run-length '
            'encoding {size, counts} or polygons.',
        ) from None


def _check(path: Path, table: np.ndarray, truth: GroundTruth) -> None:
    """Raises on the first record that has no defined AP."""
    image, box, score, category = (
        *(table[:, 0], table[:, 1:5], table[:, 5], table[:, 6]),
    )
    masks = np.isnan(box).all()
    problems = [
        (~np.isfinite(score), 'score', score, 'Scores are numbers.'),
        (~np.isin(image, truth.image_ids), 'image_id', image, ''),
        (~np.isin(category, truth.category_ids), 'category_id', category, ''),
    ]
    if not masks:
        problems += [
            (
                ~(abs(box) < 1e15).all(1),
                *('bbox', box, 'Boxes are numbers, of pixels.'),
            ),
            ((box[:, 2:] < 0).any(1), 'bbox', box, 'Sizes are >= 0 pixels.'),
        ]
    for bad, name, values, fix in problems:
        if not bad.any():
            continue
        first, count = int(np.argmax(bad)), int(bad.sum())
        value = np.asarray(values[first]).tolist()
        if name == 'image_id' and bad.all():
            raise UserError(
                f'{path} predicts other images: none of its ids (the first '
                f'is {value:.0f}) is in {truth.path}',
                'Compare runs tested on one annotation file.',
            )
        if name.endswith('_id'):
            known = (
                truth.image_ids if name == 'image_id' else truth.category_ids
            )
            near = known[np.argmin(abs(known - value))]
            value = f'{value:.0f}'
            fix = f'{truth.path} does not list it; the nearest is {near}.'
        raise UserError(
            f'{path}: record {first} has {name} {value}'
            + (f' (and {count - 1} more like it)' if count > 1 else ''),
            fix,
        )


def _warn(path: Path, table: np.ndarray, truth: GroundTruth) -> list[str]:
    if not len(table):
        return [f'{path} holds no detection at all: every AP is 0.']
    found = []
    if not np.isnan(table[:, 1:5]).all():
        copies = len(table) - len(np.unique(table, axis=0))
        if copies:
            found.append(
                f'{path}: {copies} detections are exact copies of another; '
                'COCO counts a copy as a false positive.'
            )
    share = len(np.unique(table[:, 0])) / len(truth.image_ids)
    if share < 0.5:
        found.append(
            f'{path} has detections on {100 * share:.0f} % of the images '
            'only; the rest count as missed. Is the file complete?'
        )
    return found
