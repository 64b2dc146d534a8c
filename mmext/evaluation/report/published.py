# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Published differences for the same detector, with their sources.

Published AP depends on schedules and versions that differ from ours, so only
differences from the baseline of the same table are shown.
"""

from __future__ import annotations

import json
from pathlib import Path

from mmext.evaluation.coco.accumulate import AP_METRICS
from mmext.evaluation.report.table import Table


def published_results() -> list[dict]:
    """Returns groups of rows in AP points, the baseline first."""
    file = Path(__file__).with_name('published_results.json')
    return json.loads(file.read_text(encoding='utf-8'))


def published_table(
    detector: str, backbone: str, iou_type: str = 'bbox'
) -> Table | None:
    """Returns the published differences from a baseline, None if unknown."""
    rows, sources = [], []
    for group in published_results():
        if (group['detector'], group['baseline']) != (detector, backbone):
            continue
        base = group['rows'][0]['values'].get(iou_type, {})
        for row in group['rows'][1:]:
            delta = _difference(row, base, iou_type)
            if not delta:
                continue
            if row['source'] not in sources:
                sources.append(row['source'])
            values = [
                f'{delta[m]:+.1f}' if m in delta else '-' for m in AP_METRICS
            ]
            source = f'[{sources.index(row["source"]) + 1}]'
            name = f'{row["name"]} - {backbone}'
            rows.append([name, *values, row['schedule'], source])
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


def _difference(row: dict, base: dict, iou_type: str) -> dict:
    if 'delta' in row:
        return row['delta'].get(iou_type, {})
    values = row['values'].get(iou_type, {})
    return {m: round(v - base[m], 1) for m, v in values.items() if m in base}
