# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/image_demo.py writes what the detector finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import run_tool
from json_files import edit_json
from mmdet.apis import inference_detector, init_detector
from mmengine.registry import init_default_scope
from pycocotools import mask as rle
from pycocotools.coco import COCO
from tiny_run import (
    CLASSES,
    MASK_HEADS,
    MASK_RCNN,
    make_coco,
    write_config,
)

from mmext.checkpoints.publish import publish
from mmext.engine.memory_format import set_memory_format
from mmext.engine.predict import load_detector
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config
from mmext.utils.images import find_images

MASKS = f"""{MASK_HEADS}model['test_cfg']['rcnn'].update(max_per_img=5)
"""


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Path:
    """A mask detector with random, published weights, and images."""
    root = tmp_path_factory.mktemp('demo')
    data = make_coco(root / 'coco', train=1, val=3)
    config = write_config(root / 'mask.py', data, base=MASK_RCNN, more=MASKS)
    cfg = load_config(config)
    torch.manual_seed(0)
    init_default_scope('mmdet')
    model = build_model(cfg.model)
    model.init_weights()
    meta = {'dataset_meta': {'classes': CLASSES}}
    content = {'state_dict': model.state_dict(), 'meta': meta}
    torch.save(content, root / 'random.pth')
    publish(root / 'random.pth', root / 'net')
    (data / 'val' / 'deep').mkdir()
    shutil.move(data / 'val' / '3.png', data / 'val' / 'deep' / '3.png')
    return root


def run(world: Path, out: Path, *options: str | Path) -> int:
    """Runs the tool in this process and returns its exit status."""
    weights = next(world.glob('net-*.safetensors'))
    command = ('image_demo.py', world / 'mask.py', weights, *options)
    return run_tool(*command, '--out', out)


def test_results_equal_those_of_the_detector(world, tmp_path, capsys):
    val, out = world / 'coco' / 'val', tmp_path / 'out'
    options = (val, '--score-thr', '0', '--device', 'cpu')
    assert run(world, out, *options) == 0
    printed = capsys.readouterr().out
    assert '3 images on cpu' in printed
    assert 'Detecting' in printed and '100%' in printed
    pictures = sorted(
        p.relative_to(out / 'pictures').as_posix()
        for p in (out / 'pictures').rglob('*.png')
    )
    assert pictures == ['1.png', '2.png', 'deep/3.png']
    # pycocotools reads the files, and the ids are those of the images.
    truth = COCO(out / 'images.json')
    boxes = truth.loadRes(str(out / 'bbox.json'))
    masks = truth.loadRes(str(out / 'segm.json'))
    weights = next(world.glob('net-*.safetensors'))
    cfg = load_config(world / 'mask.py')
    detector = load_detector(cfg, weights, 'cpu')
    model = init_detector(cfg, str(weights), device='cpu')
    set_memory_format(model, 'cpu')  # as in load_detector
    assert tuple(c['name'] for c in truth.cats.values()) == CLASSES
    for image in truth.imgs.values():
        assert (image['width'], image['height']) == (128, 96)
        path = val / image['file_name']
        image_bgr = cv2.imread(str(path))
        (sample,) = detector(image_bgr, return_datasamples=True)['predictions']
        found = sample.pred_instances.numpy()
        assert len(found) == 5
        reference = inference_detector(model, str(path)).pred_instances
        np.testing.assert_array_equal(found.bboxes, reference.bboxes)
        np.testing.assert_array_equal(found.scores, reference.scores)
        for kind in (boxes, masks):
            got = kind.loadAnns(kind.getAnnIds(image['id']))
            assert [g['score'] for g in got] == found.scores.tolist()
            labels = [g['category_id'] - 1 for g in got]
            assert labels == found.labels.tolist()
            xyxy = np.array([g['bbox'] for g in got])
            if kind is boxes:
                xyxy[:, 2:] += xyxy[:, :2]
                np.testing.assert_allclose(xyxy, found.bboxes, rtol=1e-6)
        decoded = [rle.decode(g['segmentation']) for g in got]
        assert (np.array(decoded) == found.masks).all()
        # The detections were drawn on this image.
        drawn = cv2.imread(str(out / 'pictures' / image['file_name']))
        differ = (drawn != image_bgr).any(-1)
        assert drawn.shape == (96, 128, 3) and differ.any()


def test_ids_of_an_annotation_file(world, tmp_path):
    def change(content: dict) -> None:
        content['images'][1]['id'] = 77
        for category in content['categories']:
            category['id'] += 10

    ann = shutil.copy(world / 'coco' / 'val.json', tmp_path)
    edit_json(Path(ann), change)
    image = world / 'coco' / 'val' / '2.png'
    assert run(world, tmp_path / 'out', image, '--ann', ann) == 0
    entries = json.loads((tmp_path / 'out' / 'bbox.json').read_text())
    assert {e['image_id'] for e in entries} == {77}
    assert {e['category_id'] for e in entries} <= {11, 12}


def test_unreadable_images_are_skipped(world, tmp_path, capsys):
    images = tmp_path / 'images'
    shutil.copytree(world / 'coco' / 'val', images)
    (images / '1.png').write_bytes(b'')
    content = (images / '2.png').read_bytes()
    (images / '2.png').write_bytes(content[:20])
    assert run(world, tmp_path / 'out', images) == 2
    error = capsys.readouterr().err
    assert '2 of 3 images could not be read' in error and '1.png' in error
    drawn = [p.name for p in (tmp_path / 'out' / 'pictures').rglob('*.png')]
    assert drawn == ['3.png']
    entries = json.loads((tmp_path / 'out' / 'bbox.json').read_text())
    assert {e['image_id'] for e in entries} == {3}


def test_bad_inputs_write_nothing(world, tmp_path, capsys):
    val = world / 'coco' / 'val'
    (tmp_path / 'file').touch()
    (tmp_path / 'empty').mkdir()
    ann = Path(shutil.copy(world / 'coco' / 'val.json', tmp_path))
    edit_json(ann, lambda content: content['images'].pop(0))
    for options, says in (
        ([val / '11.png'], "Did you mean '1.png'?"),
        ([tmp_path / 'empty'], 'holds no image; it has nothing'),
        ([world / 'mask.py'], 'is not an image by its name'),
        ([val, '--device', 'cuda:9'], "device 'cuda:9' is not available"),
        ([val, '--score-thr', '30'], '--score-thr 30.0 is not between'),
        ([val, '--ann', world / 'mask.py'], 'mask.py is not JSON'),
        ([val, '--ann', ann], "classes: '1.png' is missing"),
        ([val, '--sha256', '0' * 64], 'and 00000000'),
        (
            [val, '--cfg-options', 'model.neck.out_channels=8'],
            'of another architecture',
        ),
    ):
        assert run(world, tmp_path / 'out', *options) == 2, options
        assert says in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()
    assert run(world, tmp_path / 'file', val) == 2
    assert 'results cannot be written to' in capsys.readouterr().err


def test_find_images_returns_each_once(tmp_path):
    for name in ('b.JPG', 'a.png', 'notes.txt'):
        (tmp_path / name).touch()
    found = find_images([tmp_path / 'b.JPG', tmp_path])
    assert [p.name for p in found] == ['b.JPG', 'a.png']
    with pytest.raises(UserError, match='does not exist'):
        find_images([tmp_path / 'gone' / 'a.png'])
