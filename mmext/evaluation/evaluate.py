# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``mmext.evaluate``: COCO's metrics of one result file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmext.evaluation.coco.accumulate import accumulate_weighted, summarize
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.predictions import read_predictions


def evaluate(
    predictions: str | Path, ann: str | Path, *, iou_type: str | None = None
) -> dict[str, float]:
    """Computes COCO's twelve metrics, equal to those of pycocotools.

    Args:
        predictions: A COCO result file.
        ann: Its COCO annotation file.
        iou_type: ``'bbox'`` or ``'segm'``. Default: ``'segm'`` if the
            records have masks.

    Returns:
        ``AP``, ``AP50``, ... ``ARl`` from 0 to 1; nan if there is no object
        of that kind.

    Raises:
        UserError: A file cannot be used, or they do not belong together.

    Example:
        >>> mmext.evaluate('a.bbox.json', 'instances_val.json')['AP']
        0.374
    """
    truth = read_ground_truth(ann)
    matches = match(truth, read_predictions(predictions, truth, iou_type))
    once = np.ones((1, matches.num_images), int)
    cube = accumulate_weighted(matches, once, exact=True)
    return {name: float(v[0]) for name, v in summarize(cube).items()}
