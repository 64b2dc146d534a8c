# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Curves, confusion matrix and error types of runs, as CSV and PNG."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import hotcoco.plot
import numpy as np
from matplotlib.figure import Figure

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.diagnosis import KINDS, error_types
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import make_evaluator
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.runs import Run, logged_curves


def plot_curves(
    runs: Sequence[Run],
    folder: str | Path,
    keys: Sequence[str] = ('loss', 'coco/bbox_mAP'),
) -> list[Path]:
    """Writes one CSV file a run and one PNG file a logged name."""
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
    for key in keys:
        figure = Figure(figsize=(6, 4), layout='constrained')
        axes = figure.subplots()
        for run, found in zip(runs, curves, strict=True):
            if key in found:
                axes.plot(*zip(*found[key], strict=True), label=run.name)
        axes.set(xlabel='step', ylabel=key)
        axes.grid(alpha=0.3)
        axes.legend()
        path = folder / f'{key.replace("/", "_")}.png'
        figure.savefig(path, dpi=150)
        written.append(path)
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
    side = min(max(6, 0.35 * len(names)), 20)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    hotcoco.plot.confusion_matrix(found, ax=axes)
    axes.title.set_fontweight('normal')  # matplotlib warns of hotcoco's 500
    figure.savefig(image, dpi=200, bbox_inches='tight')
    return [table, image]


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
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    height = 0.8 / len(lost)
    for i, (name, values) in enumerate(lost):
        places = np.arange(len(kinds)) + i * height
        axes.barh(places, [100 * values[k] for k in kinds], height, label=name)
    axes.set_yticks(np.arange(len(kinds)) + 0.4 - height / 2, kinds)
    axes.invert_yaxis()
    axes.set_xlabel('AP50 points lost')
    axes.legend()
    image = table.with_suffix('.png')
    figure.savefig(image, dpi=150)
    return [table, image]


def _write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path
