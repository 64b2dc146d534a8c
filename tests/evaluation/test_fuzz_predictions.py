# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Any prediction file has pycocotools' metrics, or is refused.

``MMEXT_FUZZ=2000`` tries that many new ones; the default is a few fixed ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import NAMES, pycoco, random_detections, random_truth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

import mmext
from mmext.errors import UserError

EXAMPLES = os.environ.get('MMEXT_FUZZ')
TRUTH = random_truth(6, images=8)
FOUND = random_detections(7, TRUTH)
IDS = [i['id'] for i in TRUTH['images']]
CATEGORIES = [c['id'] for c in TRUTH['categories']]
ODD: list[Any] = [None, True, 'x', '7', '', [], {}, -1, 0, 1e308, 2**60]
ODD += [float('nan'), float('inf')]
number = st.floats(-50, 700) | st.integers(-5, 700)
size = st.floats(0, 300) | st.sampled_from([0, 0.0, 1e-9, 5e8])
box = st.tuples(number, number, size, size).map(list)
ODD_MASKS = [[[1, 2]], [[5, 5, 90, 5, 90, 90]], {'size': [480, 640]}]
ODD_MASKS += [{'size': [480, 640], 'counts': n} for n in ([307200], [5], 'P')]


def mask(box: list[float]) -> dict:
    """The run-length encoding of a box, as in a JSON file."""
    inside = np.clip([box], 0, 300.0)
    [code] = mask_utils.frPyObjects(inside, 480, 640)
    return {**code, 'counts': code['counts'].decode()}


def with_masks(records: list[dict]) -> list[dict]:
    """Records of boxes, with the boxes as masks, too."""
    return [{**r, 'segmentation': mask(r['bbox'])} for r in records]


@st.composite
def result_files(draw: st.DrawFn, iou_type: str) -> list[Any]:
    """Good detections, with new, odd, repeated and missing values."""
    found = [dict(d) for d in FOUND[: draw(st.integers(0, len(FOUND)))]]
    for _ in range(draw(st.integers(0, 4))):
        found.append(
            {
                'image_id': draw(st.sampled_from(IDS)),
                'category_id': draw(st.sampled_from(CATEGORIES)),
                'bbox': draw(box),
                'score': draw(st.floats(-2, 2) | st.integers(0, 1)),
            }
        )
    if iou_type == 'segm':
        found = with_masks(found)
        if found and draw(st.booleans()):
            record = found[draw(st.integers(0, len(found) - 1))]
            record['segmentation'] = draw(st.sampled_from(ODD_MASKS))
    if found and draw(st.booleans()):
        found += found[: draw(st.integers(1, 5))]
    if found and draw(st.booleans()):
        record = found[draw(st.integers(0, len(found) - 1))]
        key = draw(st.sampled_from([*record]))
        kind = draw(st.sampled_from(['odd', 'missing', 'extra', 'float']))
        if kind == 'missing':
            del record[key]
        elif kind == 'extra':
            record['file_name'] = draw(st.text(max_size=5))
        elif kind == 'float' and isinstance(record[key], int):
            record[key] = float(record[key])
        elif kind == 'odd':
            record[key] = draw(st.sampled_from(ODD))
    if draw(st.integers(0, 9)) == 0:
        found.append(draw(st.sampled_from(ODD)))
    return found


def as_pycocotools_reads(record: dict) -> dict:
    """A detection of a mask, which is compressed and has no box."""
    record = {k: v for k, v in record.items() if k != 'bbox'}
    code = record['segmentation']
    if isinstance(code, list):
        code = mask_utils.merge(mask_utils.frPyObjects(code, 480, 640))
    elif isinstance(code['counts'], list):
        code = mask_utils.frPyObjects(code, 480, 640)
    return {**record, 'segmentation': code}


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equal_or_refused(tmp_path: Path, iou_type: str) -> None:
    truth = {**TRUTH, 'annotations': with_masks(TRUTH['annotations'])}
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    examples = int(EXAMPLES or 120)
    compared = 0

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=not EXAMPLES,
    )
    @given(found=result_files(iou_type))
    def check(found: list) -> None:
        nonlocal compared
        file = tmp_path / 'dt.json'
        file.write_text(json.dumps(found))
        try:
            ours = mmext.evaluate(
                file, tmp_path / 'gt.json', iou_type=iou_type
            )
        except UserError:
            return
        compared += 1
        if not found:  # pycocotools cannot evaluate nothing
            assert ours['AP'] == 0
            return
        if iou_type == 'segm':
            found = [as_pycocotools_reads(record) for record in found]
        expected = pycoco(truth, found, iou_type).stats
        np.testing.assert_allclose(
            [ours[name] for name in NAMES],
            np.where(expected == -1, np.nan, expected),
            atol=1e-9,
        )

    check()
    assert compared > examples / 5
