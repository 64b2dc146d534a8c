# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.Detector` with a checkpoint equals mmdet's inferencer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from mmdet.structures.mask import encode_mask_results

import mmext
from mmext.engine.predict import load_detector
from mmext.errors import UserError


@pytest.fixture(scope='module')
def detector(family) -> mmext.Detector:
    made = family('mask-rcnn')
    return mmext.Detector(made.checkpoint, made.config, batch_size=2)


def test_equals_the_inferencer(detector, family, data):
    made = family('mask-rcnn')
    inferencer = load_detector(made.cfg, made.checkpoint, 'cpu')
    assert detector.classes == ('square', 'disc')
    paths = sorted((data / 'val').glob('*.png'))
    tall = cv2.imread(str(paths[0])).transpose(1, 0, 2).copy()
    images = [*paths, tall]
    results = detector(images)
    for image, found in zip(images, results, strict=True):
        array = image if image is tall else cv2.imread(str(image))
        (sample,) = inferencer(array, return_datasamples=True)['predictions']
        expected = sample.pred_instances.numpy()
        assert len(found) == len(expected) > 20
        # Others of the batch change the order of sums.
        np.testing.assert_allclose(found.boxes, expected.bboxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.masks.shape == expected.masks.shape
        assert (found.masks != expected.masks).mean() < 1e-4


def test_coco_results(detector, data):
    (found,) = detector(data / 'val' / '1.png')
    entries = found.coco(7, [11, 12])
    assert len(entries) == len(found)
    assert {e['image_id'] for e in entries} == {7}
    assert [e['category_id'] - 11 for e in entries] == found.labels.tolist()
    x, y, w, h = entries[0]['bbox']
    np.testing.assert_allclose([x, y, x + w, y + h], found.boxes[0], rtol=1e-5)
    expected = encode_mask_results([found.masks[0]])[0]
    assert entries[0]['segmentation']['counts'].encode() == expected['counts']


def test_threads(detector, data):
    paths = sorted((data / 'val').glob('*.png'))
    alone = [detector(path)[0] for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda path: detector(path)[0], paths * 3)
        for found, expected in zip(together, alone * 3, strict=True):
            np.testing.assert_array_equal(found.boxes, expected.boxes)


@pytest.mark.parametrize(
    ('image', 'text'),
    [
        ('gone.jpg', 'cannot be read'),
        (np.zeros((9, 9), np.uint8), r'array \(9, 9\) of type uint8'),
        (np.zeros((9, 9, 3)), 'of type float64'),
        (np.zeros((0, 9, 3), np.uint8), 'has the shape'),
    ],
)
def test_bad_images(detector, image, text):
    with pytest.raises(UserError, match=text):
        detector([image])


def test_bad_arguments(family):
    made = family('mask-rcnn')
    with pytest.raises(UserError, match='a checkpoint needs its config'):
        mmext.Detector(made.checkpoint)
    with pytest.raises(UserError, match='batch_size is 0'):
        mmext.Detector(made.checkpoint, made.config, batch_size=0)
    with pytest.raises(UserError, match='needs no config'):
        mmext.Detector('a.onnx', made.config)
