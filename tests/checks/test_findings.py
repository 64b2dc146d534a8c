# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Errors in a data set that does not fit its config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from mmext.checks.config import find_config_splits
from mmext.checks.findings import require
from mmext.checks.splits import check_splits
from mmext.datasets.shapes.generate import write_shapes
from mmext.errors import UserError


def loader(root: Path, classes: tuple[str, ...], masks: bool) -> Config:
    return Config(
        {
            'train_dataloader': {
                'dataset': {
                    'type': 'CocoDataset',
                    'data_root': str(root),
                    'ann_file': 'annotations/instances_train.json',
                    'data_prefix': {'img': 'train/'},
                    'metainfo': {'classes': classes},
                    'pipeline': [
                        {'type': 'LoadImageFromFile'},
                        {'type': 'LoadAnnotations', 'with_mask': masks},
                    ],
                }
            }
        }
    )


def check(root: Path, classes: tuple[str, ...], masks: bool) -> None:
    splits = find_config_splits(loader(root, classes, masks), ('train',))
    require(check_splits(splits).findings)


@pytest.fixture
def edited(tmp_path) -> Callable[[Callable[[dict], None]], Path]:
    root = write_shapes(tmp_path / 's', 3, 1)

    def change(edit: Callable[[dict], None]) -> Path:
        path = root / 'annotations/instances_train.json'
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return root

    return change


def test_data_that_fits_passes(edited):
    root = edited(lambda content: None)
    check(root, ('circle', 'star'), masks=True)


def test_a_mask_detector_on_boxes(edited):
    def strip(content: dict) -> None:
        for annotation in content['annotations']:
            del annotation['segmentation']

    root = edited(strip)
    check(root, ('circle', 'star'), masks=False)
    with pytest.raises(UserError, match='have a box and no mask'):
        check(root, ('circle', 'star'), masks=True)


def test_one_misspelt_class_among_right_ones(edited):
    """mmdet drops it silently, and every later label is off by one."""
    root = edited(lambda content: None)
    with pytest.raises(UserError, match="'sqare'.*\n.*mean 'square'"):
        check(root, ('circle', 'sqare', 'star'), False)


def test_classes_without_annotations(edited):
    def keep_none(content: dict) -> None:
        content['annotations'] = [
            a for a in content['annotations'] if a['category_id'] != 1
        ]

    root = edited(keep_none)
    with pytest.raises(UserError, match=r'no annotation of any chosen class'):
        check(root, ('circle',), False)
