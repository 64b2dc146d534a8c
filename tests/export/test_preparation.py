# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Images are resized and padded as mmdet's pipeline does."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmext.errors import UserError
from mmext.export.preparation import Preparation, find_preparation

RATIO = {'type': 'Resize', 'scale': (160, 96), 'keep_ratio': True}
FIXED = {'type': 'mmdet.Resize', 'scale': (160, 96), 'keep_ratio': False}
PAD = {'type': 'Pad', 'size': (160, 160), 'pad_val': {'img': (114,) * 3}}
PACK = {
    'type': 'PackDetInputs',
    'meta_keys': ('ori_shape', 'img_shape', 'scale_factor'),
}


@pytest.mark.parametrize('steps', [[RATIO], [FIXED], [RATIO, PAD], [PAD], []])
@pytest.mark.parametrize('shape', [(97, 131), (200, 50), (40, 61)])
def test_as_mmdet(steps, shape):
    pipeline = [{'type': 'LoadImageFromNDArray'}, *steps, PACK]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        transform = Compose([TRANSFORMS.build({**s}) for s in pipeline])
        expected = transform({'img': image})
    found = find_preparation(pipeline)(image)
    pixels = expected['inputs'].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found.pixels, pixels)
    sample = expected['data_samples']
    assert found.size == shape == sample.ori_shape
    if steps[:1] not in ([], [PAD]):
        assert found.scale == pytest.approx(sample.scale_factor)
    else:
        assert found.scale == (1, 1)


def test_without_steps():
    steps = [{'type': 'LoadImageFromFile', 'to_float32': True}, PACK]
    steps.append({'type': 'Resize', 'scale_factor': 1.0, 'keep_ratio': True})
    assert find_preparation(steps) == Preparation()


@pytest.mark.parametrize(
    'step',
    [
        {'type': 'CenterCrop', 'crop_size': (1, 1)},
        {'type': 'Resize', 'scale_factor': 0.5},
        {'type': 'Resize', 'scale': (9, 9), 'interpolation': 'nearest'},
        {'type': 'Pad', 'size_divisor': 32},
        {'type': 'Pad', 'size': (9, 9), 'pad_val': {'img': (1, 2, 3)}},
        {'type': 'LoadImageFromFile', 'color_type': 'grayscale'},
    ],
)
def test_other_steps_are_refused(step):
    with pytest.raises(UserError, match='step 0 of the test pipeline') as info:
        find_preparation([step])
    assert step['type'] in str(info.value)
