# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Published differences for the same detector, with their sources.

Published AP depends on schedules and versions that differ from ours, so only
differences from the baseline of the same table are shown.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmext.evaluation.coco.summary import AP_METRICS
from mmext.evaluation.report.table import Table

if TYPE_CHECKING:
    from mmengine.config import Config

_FILE = Path(__file__).with_name('published_results.json')


@cache
def published_results() -> list[dict]:
    """Returns groups of rows, in AP points as the papers print them.

    The first row of a group is its baseline.
    """
    return json.loads(_FILE.read_text(encoding='utf-8'))


def detector_name(cfg: Config) -> str:
    """Returns the usual name: ``Faster R-CNN`` for ``FasterRCNN``."""
    model = cfg.model
    kind = str(model.type).rsplit('.', 1)[-1]
    masks = 'mask_head' in (model.get('roi_head') or {})
    if kind == 'CascadeRCNN' and masks:
        return 'Cascade Mask R-CNN'
    return re.sub(r'(?<=[a-z])RCNN', ' R-CNN', kind)


def published_table(
    detector: str, backbone: str, iou_type: str = 'bbox'
) -> Table | None:
    """Returns the published differences from a baseline.

    Args:
        detector: A name from :func:`detector_name`.
        backbone: Backbone of the baseline, such as ``ResNet-50``.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'bbox'``.

    Returns:
        The table, or None if there are no published results.
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
            cells = [f'{row["name"]} - {group["baseline"]}']
            cells += [
                f'{delta[m]:+.1f}' if m in delta else '-' for m in AP_METRICS
            ]
            cells += [row['schedule'], f'[{sources.index(row["source"]) + 1}]']
            rows.append(cells)
    if not rows:
        return None
    return Table(
        ['published difference', *AP_METRICS, 'schedule', 'source'],
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
