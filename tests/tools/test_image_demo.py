# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/image_demo.py writes what the detector finds."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import run_tool
from json_files import edit_json
from mmdet.apis import inference_detector, init_detector
from mmengine.registry import init_default_scope
from PIL import Image
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
from mmext.utils.images import find_images, picture_names

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


def in_folders(world: Path, root: Path) -> tuple[Path, Path]:
    """Images of equal names in two folders, and their annotation file."""
    content = json.loads((world / 'coco' / 'val.json').read_text())
    content['images'] = [
        {'id': i, 'file_name': f'{name}/1.png', 'width': 128, 'height': 96}
        for i, name in enumerate('ab', 11)
    ]
    content['annotations'] = []
    for name in 'ab':
        (root / 'images' / name).mkdir(parents=True)
        shutil.copy(
            world / 'coco' / 'val' / f'{1 + (name == "b")}.png',
            root / 'images' / name / '1.png',
        )
    ann = root / 'ann.json'
    ann.write_text(json.dumps(content))
    return root / 'images', ann


@pytest.mark.parametrize('given', [['a', 'b'], ['b'], ['a/1.png'], ['.']])
def test_ids_of_equal_names_in_several_folders(world, tmp_path, given):
    root, ann = in_folders(world, tmp_path)
    out = tmp_path / 'out'
    assert run(world, out, *(root / g for g in given), '--ann', ann) == 0
    entries = json.loads((out / 'images.json').read_text())['images']
    ids = {'a': [11], 'b': [12], 'a/1.png': [11]}
    want = [i for g in given for i in ids.get(g, [11, 12])]
    assert [e['id'] for e in entries] == want
    found = json.loads((out / 'bbox.json').read_text())
    assert {e['image_id'] for e in found} == {*want}
    shown = sorted((out / 'pictures').rglob('*.png'))
    assert len(shown) == len(want)


def test_ids_that_are_not_clear(world, tmp_path, capsys):
    root, ann = in_folders(world, tmp_path)
    other = tmp_path / 'c'
    shutil.copytree(root / 'a', other)
    assert run(world, tmp_path / 'out', other, '--ann', ann) == 2
    assert 'Its images are a/1.png, b/1.png' in capsys.readouterr().err
    one = {'id': 11, 'file_name': '1.png', 'width': 128, 'height': 96}
    edit_json(ann, lambda content: content.update(images=[one]))
    assert run(world, tmp_path / 'out', root, '--ann', ann) == 2
    assert 'would both be its image 1.png' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('ignored', [True, False])
def test_exif_as_the_pipeline_reads_it(world, tmp_path, ignored):
    """A picture that is stored as 128 x 96 and shown as 96 x 128."""
    image = Image.open(world / 'coco' / 'val' / '1.png')
    exif = image.getexif()
    exif[0x0112] = 6
    path = tmp_path / 'a.png'
    image.save(path, exif=exif)
    kind = 'color_ignore_orientation' if ignored else 'color'
    option = f'+test_dataloader.dataset.pipeline.0.color_type={kind}'
    out = tmp_path / 'out'
    options = (path, '--score-thr', '1', '--cfg-options', option)
    assert run(world, out, *options) == 0
    (entry,) = json.loads((out / 'images.json').read_text())['images']
    size = (128, 96) if ignored else (96, 128)
    assert (entry['width'], entry['height']) == size
    drawn = cv2.imread(str(out / 'pictures/a.png'))
    assert drawn.shape[1::-1] == size
    masks = json.loads((out / 'segm.json').read_text())
    assert masks[0]['segmentation']['size'] == [*size[::-1]]


def test_names_of_pictures(tmp_path):
    def names(*given: str) -> list[str]:
        paths = [tmp_path / g for g in given]
        return picture_names(find_images(paths), paths)

    for name in ('a/x/1.png', 'a/2.png', 'b/x/1.png', 'b/c/x/1.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert names('a') == ['2.png', 'x/1.png']
    assert names('a/x/1.png', 'a/2.png') == ['1.png', '2.png']
    assert names('a/x/1.png', 'b/x/1.png') == ['a/x/1.png', 'b/x/1.png']
    assert names('a/x', 'b/x') == ['a/x/1.png', 'b/x/1.png']
    assert names('a', 'b/x') == ['a/2.png', 'a/x/1.png', 'x/1.png']
    assert names('b/x', 'b/c/x') == ['b/x/1.png', 'c/x/1.png']
    assert names('a/../a/x') == ['1.png']


def test_unreadable_images_are_skipped(world, tmp_path, capsys):
    images = tmp_path / 'images'
    shutil.copytree(world / 'coco' / 'val', images)
    (images / '1.png').write_bytes(b'')
    content = (images / '2.png').read_bytes()
    (images / '2.png').write_bytes(content[:20])
    cv2.imwrite(str(images / 'thin.png'), np.zeros((2, 2000), np.uint8))
    assert run(world, tmp_path / 'out', images) == 2
    error = capsys.readouterr().err
    assert '3 of 4 images could not be read' in error and '1.png' in error
    assert 'thin.png' in error
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
        ([val, '--ann', ann], "val/1.png'\n  -> Its images are 2.png"),
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
    for name in ('b.JPG', 'a.png', 'notes.txt', '._a.png', '.cache/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / 'b.JPG', tmp_path])
    assert [p.name for p in found] == ['b.JPG', 'a.png']
    folder = tmp_path / 'other'
    folder.mkdir()
    (folder / 'linked').symlink_to(tmp_path)
    found = [str(p.relative_to(folder)) for p in find_images([folder])]
    assert found == ['linked/a.png', 'linked/b.JPG']
    with pytest.raises(UserError, match='does not exist'):
        find_images([tmp_path / 'gone' / 'a.png'])
    with pytest.raises(UserError, match='c.png does not exist, nor do .*d.pn'):
        find_images([tmp_path / 'c.png', tmp_path, tmp_path / 'd.png'])


def test_one_image_too_large_does_not_stop_the_others(world, tmp_path, capsys):
    """Of a file of 150 bytes that would decode to gigabytes, too."""
    images = Path(shutil.copytree(world / 'coco' / 'val', tmp_path / 'in'))
    cv2.imwrite(str(images / '0.png'), np.zeros((1, 70_000, 3), np.uint8))
    bomb = bytearray((images / '1.png').read_bytes())
    bomb[16:24] = struct.pack('>II', 30_000, 30_000)
    bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
    (images / '00.png').write_bytes(bomb)
    os.mkfifo(images / '000.png')
    assert run(world, tmp_path / 'out', images) == 2
    assert '3 of 6 images could not be read' in capsys.readouterr().err
    entries = json.loads((tmp_path / 'out' / 'images.json').read_text())
    names = [image['file_name'] for image in entries['images']]
    assert names == ['1.png', '2.png', 'deep/3.png']
    pictures = tmp_path / 'out' / 'pictures'
    assert all((pictures / name).is_file() for name in names)


@pytest.mark.parametrize('name', [r'$\frac$', '\x1b[31m', '\ud800', '$_'])
def test_names_of_classes_that_matplotlib_would_read(world, tmp_path, name):
    content = torch.load(world / 'random.pth', weights_only=False)
    content['meta']['dataset_meta']['classes'] = [f'{name}a', f'b{name}']
    torch.save(content, tmp_path / 'named.pth')
    options = ['--score-thr', '0', '--device', 'cpu']
    path = world / 'coco' / 'val' / '1.png'
    out = tmp_path / 'out'
    command = (world / 'mask.py', tmp_path / 'named.pth', path, '--out', out)
    change = ('--cfg-options', 'test_dataloader.dataset.metainfo.classes=[]')
    assert run_tool('image_demo.py', *command, *options, *change) == 0
    assert (out / 'pictures' / '1.png').is_file()
