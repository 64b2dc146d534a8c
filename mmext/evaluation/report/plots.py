# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Curves, confusion matrix and error types of runs, as CSV and PNG."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import hotcoco.plot
import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.diagnosis import KINDS, error_types
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import make_evaluator
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.report.charts import MARKED
from mmext.evaluation.report.table import in_csv
from mmext.evaluation.runs import Run, logged_curves, validation_unit
from mmext.utils.figures import (
    color,
    marker,
    new_figure,
    save,
    shared_legend,
    tidy,
)
from mmext.utils.files import replacing

_MOST_CLASSES = 30  # in a picture of the confusion matrix
_SHOWN_CLASSES = 25  # of more classes


def plot_curves(
    runs: Sequence[Run],
    folder: str | Path,
    keys: Sequence[str] = ('loss', 'coco/bbox_mAP'),
) -> list[Path]:
    """Writes one CSV file a run and one PNG file a logged name.

    A few points are marked, so that a single one can be seen.
    """
    folder = Path(folder)
    curves = [logged_curves(run) for run in runs]
    known = sorted({k for c in curves for k in c})
    for key in keys:
        if key not in known:
            raise UserError(
                f'no run logged {key!r}',
                did_you_mean(key, known) or f'Logged: {", ".join(known)}.',
            )
    written = []
    for i, (run, found) in enumerate(zip(runs, curves, strict=True)):
        path = folder / f'curves_{i}_{run.name}.csv'
        rows = ((key, *xy) for key, points in found.items() for xy in points)
        written.append(_write_csv(path, ['key', 'step', 'value'], rows))
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    for key in keys:
        figure = new_figure(6.4, 4)
        axes = figure.subplots()
        units, steps = set(), set()
        for i, (run, found) in enumerate(zip(runs, curves, strict=True)):
            points = found.get(key)
            if not points:
                continue
            axes.plot(
                *zip(*points, strict=True),
                color=color(i),
                marker=marker(i) if len(points) <= MARKED else None,
                markersize=5,
                label=names[i],
            )
            steps |= {step for step, _ in points}
            trained = any(key in record for record in run.train_log)
            units.add('iteration' if trained else validation_unit(run))
        unit = units.pop() if len(units) == 1 else 'step'
        axes.set(xlabel=unit, ylabel=key)
        if len(steps) == 1:
            axes.set_xticks(list(steps))
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
        shared_legend(figure, [axes], 'upper')
        written.append(save(figure, folder / f'{key.replace("/", "_")}.png'))
    return written


def plot_confusion(
    truth: GroundTruth,
    preds: Predictions,
    folder: str | Path,
    iou: float = 0.5,
    min_score: float = 0.3,
) -> list[Path]:
    """Writes ``confusion.csv`` and ``confusion.png``.

    A row is the class of an object, a column the class that was predicted.
    The last row is detections without an object, the last column objects that
    were missed. ``iou`` is the smallest IoU of a match, whatever the classes.
    """
    found = make_evaluator(truth, preds).confusion_matrix(
        iou_thr=iou, min_score=min_score
    )
    names = [*truth.names, 'background']
    matrix = np.asarray(found['matrix']).tolist()
    table = _write_csv(
        Path(folder, 'confusion.csv'),
        ['object \\ predicted', *names],
        ([name, *row] for name, row in zip(names, matrix, strict=True)),
    )
    image = table.with_suffix('.png')
    classes = len(truth.names)
    few = classes <= _MOST_CLASSES
    shown = classes if few else _SHOWN_CLASSES
    figure = new_figure(max(6, 0.4 * shown), max(6, 0.4 * shown))
    figure.set_layout_engine('none')  # the color bar would be misplaced
    axes = figure.subplots()
    top = None if few else shown
    hotcoco.plot.confusion_matrix(found, ax=axes, top_n=top)
    axes.title.set_fontweight('normal')  # matplotlib warns of hotcoco's 500
    title = f'Share of each row (IoU {iou:g}, scores of {min_score:g} or more)'
    if not few:
        title += f'\n{shown} of {classes} classes: those confused most'
    axes.set_title(title, fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        axis.set_ticklabels([*labels[:-1], 'background'])  # it has 'BG'
    return [table, save(figure, image, dpi=150, bbox_inches='tight')]


def plot_error_types(
    runs: Sequence[tuple[str, Predictions]],
    truth: GroundTruth,
    folder: str | Path,
) -> list[Path]:
    """Writes ``error_types.csv`` and ``error_types.png`` (TIDE)."""
    lost = [(name, error_types(truth, preds)) for name, preds in runs]
    kinds = list(KINDS.values())
    table = _write_csv(
        Path(folder, 'error_types.csv'),
        ['run', *kinds],
        ([name, *(x[k] for k in kinds)] for name, x in lost),
    )
    figure = new_figure(6.4, 1.6 + len(kinds) * (0.15 * len(lost) + 0.15))
    axes = figure.subplots()
    height = 0.8 / len(lost)
    for i, (name, values) in enumerate(lost):
        places = np.arange(len(kinds)) + i * height
        points = [100 * values[k] for k in kinds]
        axes.barh(places, points, height, color=color(i), label=name)
    axes.set_yticks(np.arange(len(kinds)) + 0.4 - height / 2, kinds)
    axes.invert_yaxis()
    axes.set_xlabel('AP50 points lost')
    tidy(axes)
    shared_legend(figure, [axes], 'upper')
    return [table, save(figure, table.with_suffix('.png'))]


def _write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {'encoding': 'utf-8', 'errors': 'backslashreplace'}
    with (
        replacing(path) as part,
        part.open('w', newline='', **options) as stream,
    ):
        writer = csv.writer(stream)
        for row in (header, *rows):
            writer.writerow(map(in_csv, row))
    return path
