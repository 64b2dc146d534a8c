# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws ground truth and detections of several runs side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image, ImageOps

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import match_pairs
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.report.pictures import place_labels
from mmext.utils.figures import fitting_legend, save

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
Colour = str | tuple[float, ...]
IMAGES = 4
PANEL = 3.6  # inches
FONT = 6.5  # points
MIN_SCORE = 0.5


@dataclass(frozen=True)
class _Box:
    """A box in pixels and how it is drawn; without text it was missed."""

    box: Sequence[float]
    category: int
    text: str = ''
    style: str = '-'
    score: float = 1.0


def draw_picture(
    out: str | Path,
    truth: GroundTruth,
    img_dir: str | Path,
    detections: Mapping[str, str | Path],
) -> None:
    """Writes a PNG with a row for each image and a column for each run.

    The first column is the ground truth. A detection without an object of its
    class at IoU 0.5 is dashed. An object that a run missed is dotted white.
    ``detections`` are COCO result files by the title of their column.
    """
    names = truth.all_names
    objects = _objects(truth, names)
    columns = {'Ground truth': objects} | {
        title: _detections(truth, names, file)
        for title, file in detections.items()
    }
    records = _choose(truth.dataset['images'], objects)
    colours = _colours(names)
    shapes = [r['height'] / r['width'] for r in records]
    width, height = PANEL * len(columns), PANEL * sum(shapes) + 0.4
    figure = Figure(figsize=(width, height), dpi=130, facecolor='white')
    grid = figure.subplots(
        len(records),
        len(columns),
        squeeze=False,
        gridspec_kw={'height_ratios': shapes, 'wspace': 0.02, 'hspace': 0.03},
    )
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=11, pad=5)
    for row, record in zip(grid, records, strict=True):
        with Image.open(Path(img_dir) / record['file_name']) as image:
            # As OpenCV reads it, and so the data pipeline.
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert('RGB'))
        for axes, boxes in zip(row, columns.values(), strict=True):
            axes.imshow(pixels, interpolation='bilinear')
            axes.set_axis_off()
            here = boxes.get(record['id'], [])
            for box in here:
                _draw(axes, box, colours[box.category])
            _label(axes, pixels.shape, here, colours)
    shown = {b.category for r in records for b in objects.get(r['id'], [])}
    below = _legend(
        figure, {names[i]: colours[i] for i in names if i in shown}
    )
    height += below
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=0.004, right=0.996, top=1 - 0.32 / height, bottom=below / height
    )
    save(figure, out, dpi='figure')


def _objects(
    truth: GroundTruth, names: Mapping[int, str]
) -> dict[int, list[_Box]]:
    """The objects of each image."""
    found = defaultdict(list)
    for ann in truth.dataset['annotations']:
        if not ann.get('iscrowd'):
            category = ann['category_id']
            box = _Box(ann['bbox'], category, names[category])
            found[ann['image_id']].append(box)
    return found


def _detections(
    truth: GroundTruth, names: Mapping[int, str], file: str | Path
) -> dict[int, list[_Box]]:
    """The detections and the missed objects of each image."""
    preds = read_predictions(file, truth, 'bbox')
    preds = preds.select(preds.score >= MIN_SCORE)
    pairs = match_pairs(truth, preds)
    right = {row for row, _ in pairs}
    hit = {annotation for _, annotation in pairs}
    found = defaultdict(list)
    for row, category in enumerate(preds.category_id.tolist()):
        confidence = f'{preds.score[row]:.2f}'.replace('0.', '.')
        box = _Box(
            preds.box[row].tolist(),
            category,
            f'{names[category]} {confidence}',
            '-' if row in right else '--',
            float(preds.score[row]),
        )
        found[int(preds.image_id[row])].append(box)
    for i, ann in enumerate(truth.dataset['annotations']):
        if i not in hit and not ann.get('iscrowd'):
            box = _Box(ann['bbox'], ann['category_id'], style=':')
            found[ann['image_id']].append(box)
    return found


def _choose(
    records: Sequence[dict], objects: Mapping[int, list[_Box]]
) -> list[dict]:
    """Images spread evenly over the data set, if possible with 3 objects."""
    for least in (3, 1):
        rich = [r for r in records if len(objects.get(r['id'], [])) >= least]
        if len(rich) >= IMAGES:
            break
    places = np.linspace(0, len(rich) - 1, min(IMAGES, len(rich)))
    return [rich[round(i)] for i in places]


def _colours(names: Mapping[int, str]) -> dict[int, Colour]:
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    # The golden ratio: classes that follow each other differ most.
    wheel = colormaps['hsv'](0.618034 * np.arange(len(names)) % 1)
    return {i: tuple(0.8 * c[:3]) for i, c in zip(names, wheel, strict=True)}


def _draw(axes: Axes, box: _Box, colour: Colour) -> None:
    x, y, w, h = box.box
    edge, halo, width = (colour, 'white', 1.8)
    if not box.text:
        edge, halo, width = ('white', 'black', 1.4)
    axes.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5),  # pixel centres are at integers
            w,
            h,
            fill=False,
            edgecolor=edge,
            linestyle=box.style,
            linewidth=width,
            path_effects=[withStroke(linewidth=width + 1.2, foreground=halo)],
        )
    )


def _label(
    axes: Axes,
    shape: tuple[int, ...],
    boxes: Sequence[_Box],
    colours: Mapping[int, Colour],
) -> None:
    """Writes the names of boxes where they do not cover each other."""
    boxes = [box for box in boxes if box.text]
    pixels = shape[1] / (72 * PANEL)  # of a point
    places = place_labels(
        [(box.score, box.text, box.box) for box in boxes],
        shape[1::-1],
        (FONT + 2.4) * pixels,
        len(boxes),
    )
    for box, place in zip(boxes, places, strict=True):
        if place is None:
            continue
        axes.text(
            *place,
            box.text,
            fontsize=FONT,
            color='white',
            va='baseline',
            bbox={
                'facecolor': colours[box.category],
                'edgecolor': 'none',
                'pad': 1.2,
                'alpha': 0.85,
            },
        )


def _legend(figure: Figure, shown: Mapping[str, Colour]) -> float:
    """Draws the legend and returns its height in inches."""
    first = dict(list(shown.items())[:10])
    lines = [Line2D([], [], color=c, lw=2) for c in first.values()]
    lines.append(Line2D([], [], color='#444444', lw=2, ls='--'))
    lines.append(Line2D([], [], color='#aaaaaa', lw=2, ls=':'))
    names = [*first, 'wrong (no such object)', 'missed']
    if len(shown) > len(first):
        lines.append(Line2D([], [], color='none'))
        names.append(f'{len(shown) - len(first)} more classes')
    legend = fitting_legend(
        figure,
        lines,
        names,
        loc='lower center',
        fontsize=8.5,
        handlelength=1.8,
        columnspacing=1.4,
    )
    return legend.get_window_extent().height / figure.dpi + 0.1
