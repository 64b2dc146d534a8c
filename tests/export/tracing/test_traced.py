# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The function that is exported detects what mmdet's predict does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES

from mmext.export.describe import describe
from mmext.export.eager import EagerDetector
from mmext.export.exported import ExportedFile
from mmext.export.parity import BATCHES, compare_networks
from mmext.export.preparation import Preparation
from mmext.export.tracing.nms import NONE, best_boxes
from mmext.export.tracing.supported import require_supported
from mmext.export.tracing.traced import TracedDetector


class NotExported(ExportedFile):
    """A model whose outputs are read as those of a file."""

    def __init__(self, model: torch.nn.Module) -> None:
        traced = TracedDetector(model).eval()

        @torch.no_grad()
        def run(images: np.ndarray) -> list[np.ndarray]:
            return [part.numpy() for part in traced(torch.tensor(images))]

        self.path, self._run = 'model', run
        self.meta = describe(model, 'gone', Preparation(), None, 1)


@pytest.mark.parametrize('name', FAMILIES)
def test_detections_are_those_of_predict(name, family):
    model = family(name).model
    require_supported(model)
    rng = np.random.default_rng(1)
    images = list(rng.integers(0, 256, (6, 96, 128, 3), np.uint8))
    multiple = 32 if name.startswith('rtmdet') else 1
    result = compare_networks(
        EagerDetector(model), NotExported(model), images, (128, 160), multiple
    )
    assert result.images == 3 * sum(BATCHES)
    assert result.pairs > 100
    assert result.box < 1e-3 and result.score < 1e-6
    assert not result.alone
    has_masks = 'mask' in name or 'ins' in name
    assert (result.mask_iou is not None) == has_masks
    if has_masks:
        assert result.mask_iou > 0.999


@pytest.mark.parametrize('agnostic', [False, True])
def test_nms_equals_that_of_mmcv(agnostic):
    from mmcv.ops import batched_nms

    torch.manual_seed(0)
    corner = torch.rand(2, 200, 2) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 200, 2) * 30], 2)
    scores, groups = torch.rand(2, 200), torch.randint(0, 3, (2, 200))
    scores[:, ::7] = NONE
    cfg = {'type': 'nms', 'iou_threshold': 0.5, 'class_agnostic': agnostic}
    best, at = best_boxes(boxes, scores, groups, cfg, 30)
    for i in range(2):
        (there,) = (scores[i] >= 0).nonzero(as_tuple=True)
        dets, keep = batched_nms(
            boxes[i, there], scores[i, there], groups[i, there], cfg
        )
        kept = best[i] >= 0
        assert kept.sum() == min(30, len(keep))
        assert torch.equal(at[i][kept], there[keep][:30])
        assert torch.equal(best[i][kept], dets[:30, 4])


def test_a_box_of_score_0_is_a_box():
    """The RPN hands on proposals whose score is rounded to 0."""
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 29, 29]]])
    scores, groups = torch.tensor([[0.0, NONE]]), torch.zeros(1, 2)
    best, at = best_boxes(boxes, scores, groups, {'iou_threshold': 0.5}, 2)
    assert best.tolist() == [[0.0, NONE]] and at[0, 0] == 0
