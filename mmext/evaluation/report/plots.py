# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Curves, confusion matrix and error types of runs, as CSV and PNG."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import hotcoco.plot
import matplotlib
import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.error_types import error_types, evaluator
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.runs import Run

matplotlib.use('Agg')

from matplotlib import pyplot as plt  # noqa: E402


def logged_curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Key -> (step, value) of everything that was logged as a number.

    Training scalars have iterations as steps, validation metrics epochs (or
    iterations, as the run was configured).
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in (*run.train_log, *run.val_log):
        for key, value in record.items():
            if key not in ('step', 'iter', 'epoch') and isinstance(
                value, (int, float)
            ):
                curves.setdefault(key, []).append((record['step'], value))
    return curves


def plot_curves(
    runs: Sequence[Run],
    folder: str | Path,
    keys: Sequence[str] = ('loss', 'coco/bbox_mAP'),
) -> list[Path]:
    """Writes one CSV a run and one PNG a key.

    Args:
        runs: Their curves are drawn over each other.
        folder: Made where it is missing.
        keys: Logged names; those that no run has are an error.

    Raises:
        UserError: A key that no run logged.
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
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for i, (run, found) in enumerate(zip(runs, curves, strict=True)):
        path = folder / f'curves_{i}_{run.name}.csv'
        with path.open('w', newline='', encoding='utf-8') as stream:
            writer = csv.writer(stream)
            writer.writerow(['key', 'step', 'value'])
            for key, points in found.items():
                writer.writerows((key, *point) for point in points)
        written.append(path)
    for key in keys:
        figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
        for run, found in zip(runs, curves, strict=True):
            if key in found:
                axes.plot(*zip(*found[key], strict=True), label=run.name)
        axes.set(xlabel='step', ylabel=key)
        axes.grid(alpha=0.3)
        axes.legend()
        path = folder / f'{key.replace("/", "_")}.png'
        figure.savefig(path, dpi=150)
        plt.close(figure)
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

    A row is the class of an object, a column what was predicted on it; the
    last row are detections of nothing, the last column objects missed.

    Args:
        truth: Ground truth.
        preds: Detections.
        folder: Made where it is missing.
        iou: Least IoU of a match, classes aside. Default: 0.5.
        min_score: Fainter detections are left out. Default: 0.3.
    """
    found = evaluator(truth, preds).confusion_matrix(
        iou_thr=iou, min_score=min_score
    )
    names = [*truth.names, 'background']
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / 'confusion.csv'
    with table.open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['object \\ predicted', *names])
        for name, row in zip(
            names, np.asarray(found['matrix']).tolist(), strict=True
        ):
            writer.writerow([name, *row])
    image = folder / 'confusion.png'
    figure, _ = hotcoco.plot.confusion_matrix(found, save_path=str(image))
    plt.close(figure)
    return [table, image]


def plot_error_types(
    runs: Sequence[tuple[str, Predictions]],
    truth: GroundTruth,
    folder: str | Path,
) -> list[Path]:
    """Writes ``error_types.csv`` and ``error_types.png`` (TIDE).

    Args:
        runs: (name, detections).
        truth: Ground truth.
        folder: Made where it is missing.
    """
    lost = [(name, error_types(truth, preds)) for name, preds in runs]
    kinds = [*lost[0][1]]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / 'error_types.csv'
    with table.open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['run', *kinds])
        writer.writerows([n, *(x[k] for k in kinds)] for n, x in lost)
    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    height = 0.8 / len(lost)
    for i, (name, values) in enumerate(lost):
        places = np.arange(len(kinds)) + i * height
        axes.barh(places, [100 * values[k] for k in kinds], height, label=name)
    axes.set_yticks(np.arange(len(kinds)) + 0.4 - height / 2, kinds)
    axes.invert_yaxis()
    axes.set_xlabel('AP50 points lost')
    axes.legend()
    image = folder / 'error_types.png'
    figure.savefig(image, dpi=150)
    plt.close(figure)
    return [table, image]
