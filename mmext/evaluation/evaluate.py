# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext.evaluate``: COCO's metrics of one result file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.accumulate import accumulate_weighted, summarize
from mmext.evaluation.coco.formats import Format
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions


def evaluate(
    predictions: str | Path,
    ann: str | Path,
    *,
    iou_type: str | None = None,
    classes: Sequence[str] | None = None,
    file_format: str = 'coco',
    categories: str | None = None,
) -> dict[str, float]:
    """Computes COCO's twelve metrics, equal to those of pycocotools.

    Args:
        predictions: A result file.
        ann: Its COCO annotation file.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'segm'`` if the
            records have masks.
        classes: Classes to evaluate. Default: those that the run knows,
            according to the ``.meta.json`` beside its file, or all.
        file_format: Who wrote the file; see
            :class:`~mmext.evaluation.coco.formats.Format`. Default: COCO's.
        categories: What its category numbers are; see there.

    Returns:
        ``AP``, ``AP50``, ... ``ARl`` from 0 to 1; nan if there is no object
        of that kind.

    Warns:
        UserWarning: Values are defined, but may mean something else, as for
            classes without a detection.

    Raises:
        UserError: A file cannot be used, or they do not belong together.

    Example:
        >>> mmext.evaluate('a.bbox.json', 'instances_val.json')['AP']
        0.374
    """
    path = Path(predictions)
    truth, about_truth = choose_classes(
        read_ground_truth(ann), [(path.name, path)], classes
    )
    found = read_predictions(
        path, truth, iou_type, Format(file_format, categories)
    )
    for text in (*about_truth, *found.warnings):
        warnings.warn(text, stacklevel=2)
    matches = match(truth, found)
    once = np.ones((1, matches.num_images), int)
    cube = accumulate_weighted(matches, once, exact=True)
    return {name: float(v[0]) for name, v in summarize(cube).items()}
