# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Metrics that write the results of each image for a comparison.

They stand beside MMSegmentation's ``IoUMetric`` and MMPretrain's
``Accuracy``, and keep what these compute of an image, so that the values
are theirs by construction. Neither package is imported.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmext.evaluation.image_results import write_image_results
from mmext.evaluation.semantic import Areas
from mmext.evaluation.top1 import KEPT, Labels
from mmext.utils.files import relative_names


class ImageResultsMetric(BaseMetric):
    """Writes ``<outfile_prefix>.<task>.npz`` and returns no metrics.

    Args:
        source: The metric whose results are written. It precedes this one in
            the evaluator.
    """

    task: ClassVar[str]

    def __init__(self, source: BaseMetric) -> None:
        collect = source.collect_device, 'mmext', source.collect_dir
        super().__init__(*collect)
        self.source = source
        self.dataset_meta = source.dataset_meta
        self.outfile_prefix: str | None = None

    @abstractmethod
    def one(self, found: Any) -> np.ndarray:
        """Returns what the source has computed of an image, as integers."""

    @abstractmethod
    def results_of(self, found: np.ndarray) -> Areas | Labels:
        """Returns the results of all images."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return tuple((self.dataset_meta or {}).get('classes') or ())

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps what the source has just computed of a batch."""
        new = self.source.results[-len(data_samples) :]
        for sample, found in zip(data_samples, new, strict=True):
            self.results.append((sample.get('img_path'), self.one(found)))

    def compute_metrics(self, results: list) -> dict:
        """Writes the results of all images, in their order."""
        paths, found = zip(*results, strict=True)
        if self.outfile_prefix is not None:
            write_image_results(
                f'{self.outfile_prefix}.{self.task}.npz',
                self.results_of(np.stack(found)),
                # A data set in one file has no names of images.
                [str(i) for i in range(len(paths))]
                if None in paths
                else relative_names(paths),
            )
        return {}


class AreasMetric(ImageResultsMetric):
    """Writes the areas of ``IoUMetric``."""

    task = 'mIoU'

    def one(self, found: tuple) -> np.ndarray:
        intersection, _, prediction, label = found
        areas = torch.stack([intersection, prediction, label], 1)
        return areas.round().long().cpu().numpy()

    def results_of(self, found: np.ndarray) -> Areas:
        return Areas(self.names, found)


class LabelsMetric(ImageResultsMetric):
    """Writes the labels and best predictions of ``Accuracy``.

    A prediction whose score does not exceed the metric's first threshold
    (``thrs``) counts as none, as it does there.
    """

    task = 'top1'

    def one(self, found: dict) -> np.ndarray:
        if 'pred_score' in found:
            scores = found['pred_score'].float()
            count = KEPT if len(scores) >= KEPT else 1
            scores, best = scores.topk(count)
            threshold = self.source.thrs[0]
            if threshold is not None:
                best = best.where(scores > threshold, -1)
        else:
            best = found['pred_label'].reshape(-1)[:1]
        labels = torch.cat([found['gt_label'].reshape(-1)[:1], best])
        return labels.long().cpu().numpy()

    def results_of(self, found: np.ndarray) -> Labels:
        count = int(found.max(initial=0)) + 1
        names = self.names or tuple(map(str, range(count)))
        return Labels(names, found[:, 0], found[:, 1:])


#: Name of a metric's class -> what writes its results of each image.
_WRITERS = {'IoUMetric': AreasMetric, 'Accuracy': LabelsMetric}


def image_results_metrics(
    metrics: Sequence[BaseMetric],
) -> list[ImageResultsMetric]:
    """Returns a metric for each one whose results of images can be written.

    A test set without labels (``format_only``) has none, and a metric with a
    writer among ``metrics`` gets no other.
    """
    written = [getattr(metric, 'source', None) for metric in metrics]
    return [
        _WRITERS[name](metric)
        for metric in metrics
        if (name := type(metric).__name__) in _WRITERS
        and not getattr(metric, 'format_only', False)
        and metric not in written
    ]
