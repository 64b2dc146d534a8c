# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Pixels, annotations and cache of the generated data set."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, METRICS, init_default_scope
from pycocotools import mask
from pycocotools.coco import COCO

from mmext.datasets.shapes import generate as shapes
from mmext.datasets.shapes.drawing import SAMPLES, coverage, outline
from mmext.datasets.shapes.generate import CLASSES, annotate, draw
from mmext.errors import UserError

TINY = {'num_train': 4, 'num_val': 3}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return shapes.write_shapes(tmp_path_factory.mktemp('data') / 's', 24, 3)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*'))
        if p.is_file()
    }


@pytest.mark.parametrize('name', CLASSES)
def test_an_outline_has_the_given_area(name):
    vertices = outline(name, (60, 50), 40, angle=0.3, stretch=1.2)
    pixels = coverage(vertices, 128, 100).sum() / SAMPLES**2
    assert pixels == pytest.approx(1600, rel=0.005)


def test_pixels_are_the_same_on_every_machine():
    """The seed determines the data set on every platform."""
    sha = hashlib.sha256()
    for index in range(3):
        image, visible, labels = draw(0, 'train', index)
        sha.update(image.tobytes())
        sha.update(visible.astype('<i8').tobytes())
        sha.update(bytes(labels))
    assert sha.hexdigest()[:16] == '9e447d1e8a82ff5a'


def test_seed_split_and_index_change_the_image():
    keys = [(0, 'train', 0), (1, 'train', 0), (0, 'val', 0), (0, 'train', 1)]
    assert len({draw(*key)[0].tobytes() for key in keys}) == 4


def test_annotations_agree_with_pycocotools(root):
    for split, count in (('train', 24), ('val', 3)):
        coco = COCO(root / f'annotations/instances_{split}.json')
        assert len(coco.imgs) == count
        assert [c['name'] for c in coco.cats.values()] == list(CLASSES)
        for ann in coco.anns.values():
            seen = coco.annToMask(ann)
            ys, xs = np.nonzero(seen)
            x, y, w, h = ann['bbox']
            assert ann['area'] == seen.sum() > 0
            assert ann['iscrowd'] == 0
            assert (x, y) == (xs.min(), ys.min())
            assert (x + w, y + h) == (xs.max() + 1, ys.max() + 1)


def test_masks_are_the_drawn_and_visible_pixels(root):
    """No pixel belongs to two objects, and each differs from the ground."""
    coco = COCO(root / 'annotations/instances_train.json')
    for image_id, record in coco.imgs.items():
        image, visible, labels = draw(0, 'train', image_id - 1)
        stored = cv2.imread(str(root / 'train' / record['file_name']))
        np.testing.assert_array_equal(stored[..., ::-1], image)
        anns = coco.loadAnns(coco.getAnnIds(image_id))
        assert [a['category_id'] - 1 for a in anns] == labels
        seen = np.zeros_like(visible)
        for i, ann in enumerate(anns):
            seen += (i + 1) * coco.annToMask(ann).astype(seen.dtype)
        np.testing.assert_array_equal(seen, visible)
        file = root / 'semantic/train' / record['file_name']
        classes = np.array([0, *(a['category_id'] for a in anns)])
        np.testing.assert_array_equal(
            cv2.imread(str(file), cv2.IMREAD_UNCHANGED), classes[visible]
        )


def test_all_sizes_classes_and_occlusion_occur(root):
    coco = COCO(root / 'annotations/instances_train.json')
    anns = list(coco.anns.values())
    areas = np.array([a['area'] for a in anns])
    assert (areas < 32**2).sum() > 20
    assert ((areas >= 32**2) & (areas < 96**2)).sum() > 20
    assert (areas >= 96**2).sum() >= 3
    assert {a['category_id'] for a in anns} == set(range(1, 6))
    overlapping = 0
    for objects in coco.imgToAnns.values():
        boxes = [a['bbox'] for a in objects]
        ious = mask.iou(boxes, boxes, [False] * len(boxes))
        overlapping += (np.triu(ious, 1) > 0).sum()
    assert overlapping > 10
    assert any(len(a['segmentation']) > 1 for a in anns)


def test_a_smaller_set_is_a_prefix_of_a_larger(root, tmp_path):
    small = digest(shapes.write_shapes(tmp_path / 's', 2, 1))
    large = digest(root)
    assert small['train/000001.png'] == large['train/000001.png']
    first = [list(annotate(*draw(0, 'train', i)[1:])) for i in range(2)]
    stored = COCO(tmp_path / 's/annotations/instances_train.json')
    assert len(stored.anns) == sum(map(len, first))


@pytest.mark.parametrize(
    'damage',
    [
        lambda r: (r / 'train/000000.png').unlink(),
        lambda r: (r / 'val/000000.png').write_bytes(b''),
        lambda r: (r / 'annotations/instances_val.json').write_text('{'),
        lambda r: (r / shapes.MANIFEST).write_text('not json'),
    ],
)
def test_a_damaged_folder_is_written_again(tmp_path, damage):
    root = shapes.write_shapes(tmp_path / 's', **TINY)
    before = digest(root)
    damage(root)
    # The remains of a killed process must not disturb the next.
    (tmp_path / '.s.partial' / 'train').mkdir(parents=True)
    shapes.write_shapes(root, **TINY)
    assert digest(root) == before
    assert {p.name for p in tmp_path.iterdir()} <= {'s', '.s.lock'}


def test_an_intact_folder_is_not_written_again(tmp_path, monkeypatch):
    root = shapes.write_shapes(tmp_path / 's', **TINY)
    monkeypatch.setattr(shapes, 'draw', None)
    assert shapes.write_shapes(root, **TINY) == root


def test_a_failing_write_leaves_no_data_set(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'disk full')

    monkeypatch.setattr(shapes, 'write_image', fail)
    with pytest.raises(OSError, match='disk full'):
        shapes.write_shapes(tmp_path / 's', **TINY)
    assert not (tmp_path / 's').exists()


def _write(root: Path, die_at: int | None = None) -> None:
    """Writes the set in a child process, or exits at the n-th image."""
    written = []
    write_image = shapes.write_image

    def counted(*args) -> None:
        written.append(args)
        if len(written) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        write_image(*args)

    shapes.write_image = counted
    shapes.write_shapes(root, **TINY)


def test_concurrent_processes_and_one_that_is_killed(tmp_path):
    fork = multiprocessing.get_context('fork')
    killed = fork.Process(target=_write, args=(tmp_path / 's', 3))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / 's').exists()
    jobs = [
        fork.Process(target=_write, args=(tmp_path / 's',)) for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    whole = shapes.write_shapes(tmp_path / 'other', **TINY)
    assert digest(tmp_path / 's') == digest(whole)
    assert {p.name for p in tmp_path.glob('[!.]*')} == {'s', 'other'}


def test_a_folder_of_other_files_is_not_changed(tmp_path):
    (tmp_path / 'mine.txt').write_text('keep')
    with pytest.raises(UserError, match='not a shapes data set'):
        shapes.write_shapes(tmp_path, **TINY)
    assert os.listdir(tmp_path) == ['mine.txt']


@pytest.mark.parametrize(
    'wrong',
    [{'num_train': 0}, {'num_val': 0}, {'seed': -1}, {'size': (64, 64)}],
)
def test_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(UserError, match='160x160'):
        shapes.write_shapes(tmp_path / 's', **(TINY | wrong))
    assert not (tmp_path / 's').exists()


def test_the_data_set_in_a_config(cache):
    init_default_scope('mmdet')
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        {'type': 'PackDetInputs'},
    ]
    data = DATASETS.build(
        {'type': 'ShapesDataset', 'split': 'val', 'pipeline': pipeline, **TINY}
    )
    assert len(data) == 3
    assert data.metainfo['classes'] == CLASSES
    _, visible, labels = draw(0, 'val', 0)
    sample = data[0]['data_samples'].gt_instances
    assert sample.labels.tolist() == labels
    areas = [(visible == i + 1).sum() for i in range(len(labels))]
    got = sample.masks.to_ndarray().reshape(len(labels), -1).sum(axis=1)
    assert got.tolist() == areas


def test_the_metric_finds_the_annotations(cache):
    """Ground truth as detections has an AP of 1."""
    data = DATASETS.build({'type': 'ShapesDataset', 'split': 'val', **TINY})
    metric = METRICS.build({'type': 'ShapesMetric'})
    metric.dataset_meta = data.metainfo
    for i in range(len(data)):
        info = data.get_data_info(i)
        boxes = np.array([x['bbox'] for x in info['instances']])
        prediction = {
            'img_id': info['img_id'],
            'bboxes': boxes,
            'scores': np.ones(len(boxes)),
            'labels': np.array([x['bbox_label'] for x in info['instances']]),
        }
        metric.results.append(({}, prediction))
    scores = metric.evaluate(size=3)
    assert scores['coco/bbox_mAP'] == 1.0


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='MMEXT_CACHE'):
        DATASETS.build({'type': 'ShapesDataset', **TINY})


def test_an_unknown_split(cache):
    with pytest.raises(UserError, match="'tain'.*\n.*Did you mean 'train'"):
        DATASETS.build({'type': 'ShapesDataset', 'split': 'tain', **TINY})


def test_the_command_writes_one(tmp_path, monkeypatch, capsys):
    argv = ['shapes', '--out', str(tmp_path / 'd'), '--num-train', '2']
    monkeypatch.setattr(sys, 'argv', [*argv, '--num-val', '1'])
    shapes.main()
    assert '2 + 1 images' in capsys.readouterr().out
    assert len(os.listdir(tmp_path / 'd' / 'train')) == 2
