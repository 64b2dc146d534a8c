# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Ground truth and detections of several runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

COLOURS = (
    '#e6194b',
    '#3cb44b',
    '#4363d8',
    '#f58231',
    '#911eb4',
    '#008b8b',
    '#d6589f',
    '#808000',
    '#9a6324',
    '#800000',
)


def draw_picture(
    out: Path,
    ann_file: str | Path,
    img_dir: str | Path,
    detections: Mapping[str, Path],
    images: int = 4,
    score: float = 0.5,
) -> None:
    """Writes a PNG: a row an image, a column for the truth and for each run.

    A detection that meets no object of its class at IoU 0.5 is dashed, an
    object that a run missed is dotted white in that run's column.

    Args:
        out: File to write.
        ann_file: COCO ground truth.
        img_dir: Folder of its images.
        detections: Column title -> COCO result file.
        images: Rows, spread evenly over the images with three objects or
            more. Default: 4.
        score: Detections below are not drawn. Default: 0.5.
    """
    truth = json.loads(Path(ann_file).read_text(encoding='utf-8'))
    names = {c['id']: c['name'] for c in truth['categories']}
    objects = _by_image(truth['annotations'])
    columns = {'Ground truth': objects} | {
        title: _by_image(
            d for d in json.loads(file.read_text()) if d['score'] >= score
        )
        for title, file in detections.items()
    }
    records = _choose(truth['images'], objects, images)
    colours = _colours(names)
    shapes = [r['height'] / r['width'] for r in records]
    width = 3.6 * len(columns)
    height = 3.6 * sum(shapes) + 0.75
    figure = Figure(figsize=(width, height), dpi=130, facecolor='white')
    grid = figure.subplots(
        len(records),
        len(columns),
        squeeze=False,
        gridspec_kw={'height_ratios': shapes, 'wspace': 0.02, 'hspace': 0.03},
    )
    figure.subplots_adjust(
        left=0.004, right=0.996, top=1 - 0.32 / height, bottom=0.42 / height
    )
    for row, record in zip(grid, records, strict=True):
        pixels = _read(Path(img_dir) / record['file_name'])
        here = objects.get(record['id'], [])
        for axes, (title, found) in zip(row, columns.items(), strict=True):
            axes.imshow(pixels, interpolation='bilinear')
            axes.set_axis_off()
            if axes in grid[0]:
                axes.set_title(title, fontsize=11, pad=5)
            boxes = found.get(record['id'], [])
            hits = None if found is objects else _match(here, boxes)
            _draw_boxes(axes, record, boxes, hits, names, colours)
            for missed in set(range(len(here))) - set(
                range(len(here)) if hits is None else hits
            ):
                _frame(axes, here[missed]['bbox'], 'white', ':', 1.4)
    shown = {b['category_id'] for r in records for b in objects[r['id']]}
    _legend(figure, [names[i] for i in names if i in shown], colours, names)
    figure.savefig(out)


def _read(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise OSError(f'{path} is not an image')
    return pixels[..., ::-1]


def _by_image(entries: Sequence[dict]) -> dict[int, list[dict]]:
    groups: dict[int, list[dict]] = {}
    for entry in entries:
        if not entry.get('iscrowd'):
            groups.setdefault(entry['image_id'], []).append(entry)
    return groups


def _choose(
    records: list[dict], objects: dict[int, list[dict]], count: int
) -> list[dict]:
    """Images spread over the data set, rather those with more to see."""
    for least in (3, 1):
        rich = [r for r in records if len(objects.get(r['id'], [])) >= least]
        if len(rich) >= count or least == 1:
            break
    places = np.linspace(0, len(rich) - 1, min(count, len(rich)))
    return [rich[round(i)] for i in places]


def _colours(names: dict[int, str]) -> dict[int, str]:
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    wheel = colormaps['hsv'](np.linspace(0, 0.95, len(names)))
    return {i: tuple(0.8 * c[:3]) for i, c in zip(names, wheel, strict=True)}


def _match(objects: list[dict], boxes: list[dict]) -> list[int | None]:
    """For each box the object that it found, as COCO matches at IoU 0.5."""
    free = set(range(len(objects)))
    hits: list[int | None] = [None] * len(boxes)
    for i in sorted(range(len(boxes)), key=lambda i: -boxes[i]['score']):
        overlaps = {
            j: _iou(objects[j]['bbox'], boxes[i]['bbox'])
            for j in free
            if objects[j]['category_id'] == boxes[i]['category_id']
        }
        best = max(overlaps, key=overlaps.get, default=None)
        if best is not None and overlaps[best] >= 0.5:
            hits[i] = best
            free.remove(best)
    return hits


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    sides = [
        min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1)
    ]
    both = max(0, sides[0]) * max(0, sides[1])
    either = a[2] * a[3] + b[2] * b[3] - both
    return both / either if either else 0.0


def _draw_boxes(
    axes: Axes,
    record: dict,
    boxes: list[dict],
    hits: list[int | None] | None,
    names: dict[int, str],
    colours: dict,
) -> None:
    for i, box in enumerate(boxes):
        wrong = hits is not None and hits[i] is None
        colour = colours[box['category_id']]
        _frame(axes, box['bbox'], colour, '--' if wrong else '-', 1.8)
        text = names[box['category_id']]
        if 'score' in box:
            text += f' {box["score"]:.2f}'.replace('0.', '.')
        x, y = box['bbox'][:2]
        above = y > 0.05 * record['height']
        axes.text(
            min(max(x, 0), 0.82 * record['width']),
            max(y, 0),
            text,
            fontsize=6.5,
            color='white',
            va='bottom' if above else 'top',
            bbox={
                'facecolor': colour,
                'edgecolor': 'none',
                'pad': 1.2,
                'alpha': 0.85,
            },
        )


def _frame(
    axes: Axes, bbox: Sequence[float], colour: str, style: str, width: float
) -> None:
    x, y, w, h = bbox
    halo = withStroke(
        linewidth=width + 1.2,
        foreground='black' if colour == 'white' else 'white',
    )
    axes.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5),  # pixel centres are at whole numbers
            w,
            h,
            fill=False,
            edgecolor=colour,
            linestyle=style,
            linewidth=width,
            path_effects=[halo],
        )
    )


def _legend(
    figure: Figure, shown: list[str], colours: dict, names: dict[int, str]
) -> None:
    ids = {name: i for i, name in names.items()}
    lines = [Line2D([], [], color=colours[ids[n]], lw=2) for n in shown[:10]]
    lines += [
        Line2D([], [], color='#444444', lw=2, ls='--'),
        Line2D([], [], color='#aaaaaa', lw=2, ls=':'),
    ]
    figure.legend(
        lines,
        [*shown[:10], 'wrong (no such object)', 'missed'],
        loc='lower center',
        ncols=len(lines),
        frameon=False,
        fontsize=8.5,
        handlelength=1.8,
        columnspacing=1.4,
    )
