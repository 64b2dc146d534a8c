# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Slices and mirror images, whose detections are merged."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import onnx_file

import mmext
from mmext.export.detections import Detections
from mmext.export.prediction.views import (
    View,
    detect_in_views,
    find_views,
    merge,
)

SIZE = 64, 114
LEFT, RIGHT = View((0, 0, 64, 64)), View((50, 0, 114, 64))
WHOLE = View((0, 0, 114, 64))


def detections(*rows: tuple, masks: np.ndarray | None = None) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 6)
    labels = values[:, 5].astype(int)
    return Detections(values[:, :4], values[:, 4], labels, masks)


def bright(images: list[np.ndarray]) -> list[Detections]:
    """Finds what is bright, with its mask, if it fills 2 % of an image."""
    results = []
    for image in images:
        seen = image[..., 0] > 0
        if seen.mean() < 0.02:
            results.append(detections(masks=np.zeros((0, *seen.shape), bool)))
            continue
        y, x = np.nonzero(seen)
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1, 0.9, 0)
        results.append(detections(box, masks=seen[None]))
    return results


@pytest.mark.parametrize('size', [(70, 100), (64, 64), (30, 65), (500, 30)])
@pytest.mark.parametrize('overlap', [0.0, 0.2, 0.9])
def test_slices_cover_the_image(size, overlap):
    piece = (64, 48)
    whole, *slices = find_views(size, piece, overlap)
    assert whole == View((0, 0, *size[::-1]))
    assert bool(slices) == (size[0] > 48 or size[1] > 64)
    covered = np.zeros(size, int)
    for x1, y1, x2, y2 in (view.window for view in slices):
        assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
        covered[y1:y2, x1:x2] += 1
        assert (x2 - x1, y2 - y1) == tuple(map(min, size[::-1], piece))
    assert covered.all() or not slices
    assert len({*slices}) == len(slices)
    both = find_views(size, piece, overlap, mirror=True)
    assert len(both) == 2 * (1 + len(slices)) == len({*both})


def test_one_slice_is_the_plain_result(tmp_path):
    detector = mmext.Detector(onnx_file(tmp_path / 'net.onnx'))
    image = np.zeros((60, 64, 3), np.uint8)
    views = find_views(image.shape[:2], (64, 64))
    (sliced,) = detect_in_views(detector, [image], [views])
    (plain,) = detector(image)
    np.testing.assert_array_equal(plain.boxes, sliced.boxes)
    np.testing.assert_array_equal(plain.scores, sliced.scores)


def test_each_object_is_found_once():
    found = merge(
        [
            # The left part of an object at the border, and another label.
            detections((40, 10, 64, 30, 0.6, 0), (40, 10, 64, 30, 0.5, 1)),
            # All of it, and an object of this slice only.
            detections((0, 10, 24, 30, 0.9, 0), (40, 40, 50, 50, 0.4, 0)),
            detections(),
        ],
        [LEFT, RIGHT, WHOLE],
        SIZE,
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.4])
    assert found.boxes[0].tolist() == [50, 10, 74, 30]
    assert found.boxes[2].tolist() == [90, 40, 100, 50]
    assert found.labels.tolist() == [0, 1, 0]


def test_boxes_of_one_view_stay():
    same = detections((0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.8, 0))
    found = merge([same, detections()], [LEFT, RIGHT], SIZE)
    assert len(found) == 2


def test_a_small_box_in_a_large_one():
    """It is a part of an object at a border, but not in a mirror image."""
    large = detections((0, 0, 60, 60, 0.9, 0))
    small = detections((10, 10, 20, 20, 0.8, 0))
    assert len(merge([large, small], [WHOLE, LEFT], SIZE)) == 1
    mirrored = View(WHOLE.window, mirrored=True)
    found = merge([large, small], [WHOLE, mirrored], SIZE)
    assert found.boxes[1].tolist() == [94, 10, 104, 20]
    again = detections((54, 0, 114, 60, 0.7, 0))
    assert len(merge([large, again], [WHOLE, mirrored], SIZE)) == 1


@pytest.mark.parametrize('mirror', [False, True])
def test_a_small_object_in_a_large_image(mirror):
    image = np.zeros((600, 800, 3), np.uint8)
    image[310:330, 420:440] = 255
    image[315, 425] = 0
    (plain,) = detect_in_views(bright, [image], [find_views((600, 800))])
    assert len(plain) == 0 and plain.masks.shape == (0, 600, 800)
    views = find_views((600, 800), (100, 100), 0.5, mirror)
    (found,) = detect_in_views(bright, [image], [views])
    assert found.boxes.tolist() == [[420, 310, 440, 330]]
    np.testing.assert_array_equal(found.masks[0], image[..., 0] > 0)


def test_the_lowest_score():
    found = detections((0, 0, 9, 9, 0.9, 0), (20, 20, 29, 29, 0.2, 0))
    assert len(merge([found], [WHOLE], SIZE, 0.2)) == 2
    assert len(merge([found], [WHOLE], SIZE, 0.3)) == 1
