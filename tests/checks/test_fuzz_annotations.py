# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Damaged annotation files give an error before training, or right boxes.

``MMEXT_FUZZ=2000`` tries that many new ones; the default is a few fixed ones.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from tiny_run import CLASSES, MASK_HEADS, MASK_RCNN, make_coco, write_config

from mmext.checks.config import find_config_splits
from mmext.checks.findings import require
from mmext.checks.preflight import check_run_data
from mmext.datasets.coco import read_coco
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config

EXAMPLES = os.environ.get('MMEXT_FUZZ')

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**40, -(2**63), 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(['', '1', '../1.png', '1.png', 'disc', 'é\0']),
    st.lists(st.one_of(st.integers(-9, 200), st.floats(), st.none())),
    st.dictionaries(
        st.sampled_from(['id', 'bbox', 'size', 'counts']), st.integers()
    ),
)
numbers = st.one_of(st.integers(-20, 150), st.floats(-20, 150))
#: Values that are right, or only slightly wrong.
LIKELY = {
    'images': {
        'id': st.integers(3, 999),
        'file_name': st.sampled_from(['1.png', '2.png']),
        'width': st.integers(100, 140),
        'height': st.integers(80, 120),
    },
    'annotations': {
        'id': st.integers(100, 999),
        'image_id': st.integers(1, 2),
        'category_id': st.integers(1, 2),
        'bbox': st.lists(numbers, min_size=4, max_size=4),
        'area': st.floats(0.1, 1e5),
        'segmentation': st.lists(
            st.lists(numbers, min_size=6, max_size=6), max_size=2
        ),
        'iscrowd': st.integers(0, 1),
        'ignore': st.integers(0, 1),
    },
    'categories': {
        'id': st.integers(3, 99),
        'name': st.sampled_from(CLASSES),
    },
}


@st.composite
def damages(draw) -> list[tuple]:
    """Draws a few changes: the place in the file, and the new value."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(['annotations'] * 4 + sorted(LIKELY)))
        place = draw(st.integers(0, 3))
        kinds = ['likely'] * 4 + ['set', 'number', 'drop', 'twice']
        kind = draw(st.sampled_from(kinds))
        key = draw(st.sampled_from(sorted(LIKELY[part])))
        value = draw(LIKELY[part][key] if kind == 'likely' else values)
        if kind == 'number':  # in a box or a polygon
            part = 'annotations'
            key = draw(st.sampled_from(['bbox', 'segmentation']))
        found.append((kind, part, place, key, value))
    return found


def damaged(content: dict, changes: list[tuple]) -> dict:
    content = copy.deepcopy(content)
    for kind, part, place, key, value in changes:
        entries = content[part]
        if not isinstance(entries, list) or not entries:
            continue
        entry = entries[place % len(entries)]
        if kind == 'twice':
            entries.append(copy.deepcopy(entry))
        elif kind == 'drop':
            entry.pop(key, None)
        elif kind == 'number' and isinstance(entry.get(key), list):
            inside = entry[key]
            if inside and isinstance(inside[0], list):
                inside = inside[0]
            if inside:
                inside[place % len(inside)] = value
        else:
            entry[key] = value
    return content


class World:
    """A tiny detector, its config and two good images."""

    def __init__(self, root: Path, mask: bool) -> None:
        self.data = make_coco(root / 'coco', 2, 1)
        kind = {'base': MASK_RCNN, 'more': MASK_HEADS} if mask else {}
        self.cfg = load_config(
            write_config(root / 'tiny.py', self.data, **kind)
        )
        dataset = self.cfg.train_dataloader.dataset
        dataset.pipeline = [
            t for t in dataset.pipeline if t.type != 'RandomFlip'
        ]
        init_default_scope('mmdet')
        torch.manual_seed(0)
        self.model = build_model(self.cfg.model)
        self.good = json.loads((self.data / 'train.json').read_text())

    def run(self, text: str) -> list[dict] | None:
        """Returns the samples of a file; None if the checks refuse it."""
        (self.data / 'train.json').write_text(text)
        try:
            splits = find_config_splits(self.cfg, ('train', 'val'))
            require(check_run_data(self.cfg, self.model, splits))
        except UserError as error:
            assert error.problem
            return None
        dataset = DATASETS.build(self.cfg.train_dataloader.dataset)
        assert len(dataset) > 0
        return [dataset[i] for i in range(len(dataset))]


@pytest.fixture(scope='module', params=[False, True], ids=['boxes', 'masks'])
def world(request, tmp_path_factory) -> World:
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    return World(tmp_path_factory.mktemp('fuzz'), request.param)


def expected(content: dict, image_id: int) -> np.ndarray:
    """The boxes that a detector should learn, by COCO's rules."""
    label = {c['id']: CLASSES.index(c['name']) for c in content['categories']}
    image = next(i for i in content['images'] if i['id'] == image_id)
    boxes = []
    for a in content['annotations']:
        x, y, w, h = a['bbox']
        seen = (
            min(x + w, image['width']) - max(x, 0) > 0
            and min(y + h, image['height']) - max(y, 0) > 0
        )
        if (
            a['image_id'] == image_id
            and seen
            and min(w, h) >= 1
            and a['area'] > 0
            and not a.get('iscrowd')
            and not a.get('ignore')
        ):
            corners = np.clip([x, y, x + w, y + h], 0, [128, 96, 128, 96])
            boxes.append([*corners, label[a['category_id']]])
    return np.array(sorted(boxes), np.float64).reshape(-1, 5)


def accepts(world: World, content: dict) -> bool:
    """Returns whether a file is accepted; checks its boxes and the loss."""
    samples = world.run(json.dumps(content))
    if samples is None:
        return False
    for sample in samples:
        packed = sample['data_samples']
        found = packed.gt_instances
        boxes = np.column_stack([found.bboxes.tensor, found.labels])
        if 'masks' in found:
            assert len(found.masks) == len(boxes)
            continue
        want = expected(content, packed.img_id)
        got = np.array(sorted(boxes.tolist())).reshape(-1, 5)
        np.testing.assert_allclose(got, want, atol=1e-3)
    batch = world.model.data_preprocessor(pseudo_collate(samples), True)
    losses = world.model(**batch, mode='loss')
    total, _ = world.model.parse_losses(losses)
    assert total.isfinite()
    return True


def test_an_error_or_the_right_boxes(world):
    accepted: Counter[bool] = Counter()

    @settings(
        max_examples=int(EXAMPLES or 20),
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damages())
    def check(changes):
        accepted[accepts(world, damaged(world.good, changes))] += 1

    check()
    assert min(accepted[True], accepted[False]) > 5, accepted


@settings(max_examples=40, derandomize=not EXAMPLES, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error(data):
    """Truncated anywhere or with changed bytes: an error, not a crash."""
    text = json.dumps({'images': [], 'annotations': [], 'categories': []})
    content = bytearray(text.encode())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'a.json')
        file.write_bytes(content)
        with pytest.raises(UserError):
            read_coco(file)
