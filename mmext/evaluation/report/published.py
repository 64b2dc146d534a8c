# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What others reported for the same detector: differences, with sources.

Published levels depend on schedules and versions that are not ours, so only
differences to the baseline of the same table are shown.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from mmengine.config import Config

from mmext.evaluation.report.table import Table

_FILE = Path(__file__).with_name('published_results.json')
_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')


@cache
def published_results() -> list[dict]:
    """Groups of rows; the first row of a group is its baseline."""
    return json.loads(_FILE.read_text(encoding='utf-8'))


def detector_name(cfg: Config) -> str:
    """``Faster R-CNN`` for mmdet's ``FasterRCNN``, and so on."""
    model = cfg.model
    kind = str(model.type).rsplit('.', 1)[-1]
    masks = 'mask_head' in (model.get('roi_head') or {})
    if kind == 'CascadeRCNN' and masks:
        return 'Cascade Mask R-CNN'
    return re.sub(r'(?<=[a-z])RCNN', ' R-CNN', kind)


def published_table(
    detector: str, backbone: str, iou_type: str = 'bbox'
) -> Table | None:
    """Published differences for a detector and a baseline backbone.

    Args:
        detector: As ``detector_name`` says it.
        backbone: As in ``ResNet-50``; of the baseline.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'bbox'``.

    Returns:
        None where nothing is on record.
    """
    rows, sources = [], []
    for group in published_results():
        if (group['detector'], group['baseline']) != (detector, backbone):
            continue
        base = group['rows'][0]['values'].get(iou_type)
        for row in group['rows'][1:]:
            delta = _difference(row, base, iou_type)
            if not delta:
                continue
            if row['source'] not in sources:
                sources.append(row['source'])
            rows.append(
                [
                    f'{row["name"]} - {group["baseline"]}',
                    *(
                        f'{delta[m]:+.1f}' if m in delta else '-'
                        for m in _METRICS
                    ),
                    row['schedule'],
                    f'[{sources.index(row["source"]) + 1}]',
                ]
            )
    if not rows:
        return None
    return Table(
        ['published difference', *_METRICS, 'schedule', 'source'],
        rows,
        f'Published: {detector}, COCO val2017, {iou_type}',
        [
            f'[{i}] {s if s.endswith(".") else s + "."}'
            for i, s in enumerate(sources, 1)
        ],
    )


def _difference(row: dict, base: dict | None, iou_type: str) -> dict:
    if 'delta' in row:
        return row['delta'].get(iou_type, {})
    values = row['values'].get(iou_type, {})
    return {
        m: round(v - base[m], 1)
        for m, v in values.items()
        if m in (base or {})
    }
