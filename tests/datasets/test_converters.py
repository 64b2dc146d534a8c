# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shapes written as VOC and YOLO are converted back to the same COCO."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import run_tool
from PIL import Image
from pycocotools.coco import COCO

from mmext.checks.layouts import find_coco_folder
from mmext.datasets.converters.common import LabelledObject, image_size
from mmext.datasets.converters.folder import convert_folder, read_folder
from mmext.datasets.converters.voc import read_voc
from mmext.datasets.converters.yolo import read_yolo
from mmext.datasets.shapes.generate import CLASSES, write_shapes
from mmext.errors import UserError


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp('shapes') / 's', 6, 6)


def labelled(shapes: Path) -> Iterator[tuple[str, dict, list[dict]]]:
    for split in ('train', 'val'):
        coco = COCO(shapes / 'annotations' / f'instances_{split}.json')
        for record in coco.imgs.values():
            yield split, record, coco.loadAnns(coco.getAnnIds(record['id']))


@pytest.fixture
def voc(shapes, tmp_path) -> Path:
    root = tmp_path / 'voc'
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    for split, record, anns in labelled(shapes):
        stem = f'{split}_{record["id"]}'
        image = shapes / split / record['file_name']
        shutil.copy(image, root / 'JPEGImages' / f'{stem}.png')
        objects = ''.join(
            f'<object><name>{CLASSES[a["category_id"] - 1]}</name>'
            '<difficult>0</difficult><bndbox>'
            f'<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
            f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
            for a in anns
            for x, y, w, h in [a['bbox']]
        )
        (root / 'Annotations' / f'{stem}.xml').write_text(
            f'<annotation>{objects}</annotation>'
        )
        with (root / 'ImageSets/Main' / f'{split}.txt').open('a') as file:
            file.write(f'{stem}\n')
    return root


@pytest.fixture
def yolo(shapes, tmp_path) -> Path:
    """Boxes in the training split, polygons in the other."""
    root = tmp_path / 'yolo'
    for split, record, anns in labelled(shapes):
        for name in ('images', 'labels'):
            (root / name / split).mkdir(parents=True, exist_ok=True)
        image = shapes / split / record['file_name']
        shutil.copy(image, root / 'images' / split)
        lines = ''
        for a in anns:
            x, y, w, h = a['bbox']
            points = np.array([[x + w / 2, y + h / 2], [w, h]])
            if split == 'val':
                points = np.reshape(max(a['segmentation'], key=len), (-1, 2))
            values = (points / (256, 192)).ravel()
            numbers = ' '.join(f'{v:.8f}' for v in values)
            lines += f'{a["category_id"] - 1} {numbers}\n'
        (root / f'labels/{split}/{image.stem}.txt').write_text(lines)
    names = yaml.safe_dump({'names': dict(enumerate(CLASSES))})
    (root / 'data.yaml').write_text(names)
    return root


def boxes(root: Path, split: str) -> list[list[tuple]]:
    """Class and box of every object, image by image."""
    coco = COCO(root / 'annotations' / f'instances_{split}.json')
    return [
        sorted(
            (coco.cats[a['category_id']]['name'], *map(float, a['bbox']))
            for a in coco.loadAnns(coco.getAnnIds(i))
        )
        for i in coco.imgs
    ]


def run(tool: str, *arguments: object) -> None:
    assert run_tool(f'dataset_converters/{tool}.py', *arguments) == 0


def test_voc_round_trip(shapes, voc, capsys):
    run('voc2coco', voc)
    assert 'instances_val.json: 6 images' in capsys.readouterr().out
    for split in ('train', 'val'):
        assert boxes(voc, split) == boxes(shapes, split)
    found = find_coco_folder(voc)
    assert found.classes == tuple(sorted(CLASSES))
    assert found.img_dirs['train'] == str(voc)


def test_voc_from_another_folder_copies_images(voc, tmp_path):
    out = tmp_path / 'out'
    run('voc2coco', voc, '--out', out, '--classes', 'star')
    assert find_coco_folder(out).classes == ('star',)
    assert len(list((out / 'JPEGImages').iterdir())) == 12


def test_zero_based_corners_are_not_shifted_by_a_pixel(voc):
    one = read_voc(voc).splits['train'][0].objects[0].bbox
    zero = read_voc(voc, zero_based=True).splits['train'][0].objects[0].bbox
    assert zero[0] == one[0] + 1
    assert zero[2] == one[2] - 1


@pytest.mark.parametrize('part', [0, 1, -0.2, float('nan')])
def test_fractions_that_cannot_be_held_out(voc, part):
    shutil.rmtree(voc / 'ImageSets')
    with pytest.raises(UserError, match='not a fraction of the images'):
        read_folder(voc, 'voc', val_part=part)


def test_difficult_objects_are_ignored(voc):
    replace('Annotations/*', '>0<', '>1<')(voc)
    splits = read_voc(voc).splits.values()
    assert sum(o.ignore for s in splits for i in s for o in i.objects) == 1


def test_yolo_round_trip(shapes, yolo):
    run('yolo2coco', yolo)
    got, want = boxes(yolo, 'train'), boxes(shapes, 'train')
    for mine, theirs in zip(got, want, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a[0] == b[0]
            assert a[1:] == pytest.approx(b[1:], abs=0.01)
    mine = COCO(yolo / 'annotations/instances_val.json')
    theirs = COCO(shapes / 'annotations/instances_val.json')
    whole = 0
    for a, b in zip(mine.anns.values(), theirs.anns.values(), strict=True):
        if len(b['segmentation']) == 1:
            whole += 1
            assert a['area'] == pytest.approx(b['area'], abs=0.5)
            assert (mine.annToMask(a) != theirs.annToMask(b)).mean() < 1e-3
    assert whole > 5


def test_yolo_images_without_labels_are_background(yolo):
    first(yolo, 'labels/train/*').unlink()
    found = read_yolo(yolo)
    assert found.splits['train'][0].objects == []
    assert found.names == list(CLASSES)
    assert found.notes == ['train: 1 image without a label file: background']


def test_an_image_turned_by_exif_exchanges_its_sides(yolo):
    path = first(yolo, 'images/train/*')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    image = read_yolo(yolo).splits['train'][0]
    assert (image.width, image.height) == (192, 256)


@pytest.mark.parametrize(
    'mode', ['1', 'L', 'LA', 'P', 'RGBA', 'I;16', 'CMYK', 'F']
)
def test_sizes_of_other_kinds_of_pixels(tmp_path, mode):
    path = tmp_path / ('a.tif' if mode in ('CMYK', 'F') else 'a.png')
    Image.new(mode, (50, 30)).save(path)
    assert image_size(path) == (50, 30)


def test_an_image_that_is_too_large_is_reported(tmp_path):
    """Pillow raises neither an OSError nor a UserError."""
    path = tmp_path / 'bomb.png'
    Image.new('RGB', (50, 30)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack('>II', 60000, 60000)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(UserError, match='bomb.png is not a readable image'):
        image_size(path)


def write_pair(root: Path, name: str, label: str, suffix: str = '.jpg'):
    """A YOLO folder of two images, 200x100, one label file each."""
    for split in ('train', 'val'):
        image = root / 'images' / split / f'{name}{suffix}'
        path = root / 'labels' / split / f'{name}.txt'
        for file in (image, path):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (200, 100)).save(image, 'JPEG')
        path.write_text(label, encoding='utf-8')
    (root / 'classes.txt').write_text('cat\ndog\n')
    return root


def objects(root: Path, split: str = 'train') -> list[LabelledObject]:
    return [o for i in read_yolo(root).splits[split] for o in i.objects]


@pytest.mark.parametrize(
    ('line', 'box'),
    [
        ('0 0.5 0.5 0.25 0.5', (75, 25, 50, 50)),
        ('0 0.0 0.0 0.02 0.02', (0, 0, 2, 1)),  # cut by the corner
        ('1.0 1.0 1.0 0.5 0.5', (150, 75, 50, 25)),
        ('1 0.1 0.2 0.3 0.2 0.3 0.6', (20, 20, 40, 40)),
        ('1 -0.01 0.2 1.01 0.2 0.3 0.6', (0, 20, 200, 40)),
    ],
)
def test_yolo_boxes_by_hand(tmp_path, line, box):
    found = objects(write_pair(tmp_path, 'a', line))
    assert found[0].bbox == pytest.approx(box, abs=1e-12)


@pytest.mark.parametrize(
    ('corners', 'zero_based', 'box'),
    [
        ((1, 1, 200, 100), False, (0, 0, 200, 100)),
        ((1, 1, 10, 10), False, (0, 0, 10, 10)),
        ((7, 8, 7, 8), False, (6, 7, 1, 1)),  # one pixel
        ((-5, 3, 300, 100), False, (0, 2, 200, 98)),
        ((1.5, 2.25, 9.5, 10.25), False, (0.5, 1.25, 9, 9)),
        ((0, 0, 200, 100), True, (0, 0, 200, 100)),
        ((7, 8, 9, 9), True, (7, 8, 2, 1)),
    ],
)
def test_voc_boxes_by_hand(tmp_path, corners, zero_based, box):
    write_voc(tmp_path, 'a', corners)
    (image,) = read_voc(tmp_path, zero_based).splits['train']
    assert image.objects[0].bbox == box


@pytest.mark.parametrize('width', ['200', ' 200.0\n', '0', '', 'unknown'])
def test_a_size_that_agrees_or_is_missing(tmp_path, width):
    size = f'<size><width>{width}</width><height>100</height></size>'
    write_voc(tmp_path, 'a', (1, 1, 9, 9), size)
    assert read_voc(tmp_path).splits['train'][0].objects


def test_a_corner_at_0_gives_a_warning(tmp_path):
    write_voc(tmp_path, 'a', (0, 0, 10, 10))
    write_voc(tmp_path, 'b', (1, 1, 10, 10))
    with pytest.warns(UserWarning, match='count from 1.*--zero-based'):
        read_voc(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_voc(tmp_path, zero_based=True)


def write_voc(root: Path, name: str, corners, head: str = '', suffix='.xml'):
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    box = ''.join(
        f'<{k}>{v}</{k}>' for k, v in zip(keys, corners, strict=True)
    )
    for folder in ('Annotations', 'JPEGImages'):
        (root / folder).mkdir(exist_ok=True)
    Image.new('RGB', (200, 100)).save(root / 'JPEGImages' / f'{name}.JPG')
    (root / 'Annotations' / f'{name}{suffix}').write_text(
        f'<annotation>{head}<object><name>Katze</name><bndbox>{box}</bndbox>'
        '</object></annotation>',
        encoding='utf-8',
    )


@pytest.mark.parametrize('name', ['two words', 'größe 1', 'a.b', '图'])
def test_names_with_spaces_dots_and_other_scripts(tmp_path, name):
    voc, yolo = tmp_path / 'voc', tmp_path / 'yolo'
    voc.mkdir()
    write_voc(voc, name, (1, 1, 9, 9), suffix='.XML')
    main = voc / 'ImageSets/Main'
    main.mkdir(parents=True)
    for split, column in (('train', ''), ('val', '  1')):
        text = f'{name}{column}\r\n'
        (main / f'{split}.txt').write_text(text, encoding='utf-8-sig')
    for images in read_voc(voc).splits.values():
        assert [i.path.name for i in images] == [f'{name}.JPG']
    write_pair(yolo, name, '0 .5 .5 .5 .5', '.JPG')
    convert_folder(yolo, out=tmp_path / 'out', classes=['cat'])
    assert find_coco_folder(tmp_path / 'out').classes == ('cat',)
    assert (tmp_path / f'out/images/val/{name}.JPG').is_file()


def test_yolo_files_of_windows_and_labelimg(tmp_path):
    root = write_pair(tmp_path, 'a', '\ufeff0 .5 .5 .5 .5\r\n\r\n')
    (root / 'classes.txt').write_text('cat\r\ndog\r\n', encoding='utf-8-sig')
    (root / 'labels/val/classes.txt').write_text('cat\ndog\n')
    label = root / 'labels/train/a.txt'
    label.rename(label.with_suffix('.TXT'))
    assert [o.name for o in objects(root)] == ['cat']
    assert [o.name for o in objects(root, 'val')] == ['cat']


def test_one_name_in_two_folders_is_two_images(tmp_path):
    root = write_pair(tmp_path, 'x/a', '0 .5 .5 .5 .5')
    write_pair(tmp_path, 'y/a', '1 .5 .5 .5 .5')
    assert [o.name for o in objects(root)] == ['cat', 'dog']


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def replace(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    """Returns a damage of the first file, at the first place of ``old``."""

    def damage(root: Path) -> None:
        path = first(root, pattern)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def write(pattern: str, text: str) -> Callable[[Path], object]:
    """Returns a damage that replaces the content of the first file."""
    return lambda root: first(root, pattern).write_text(text)


def copy_image(pattern: str, suffix: str) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        image = first(root, pattern)
        shutil.copy(image, image.with_suffix(suffix))

    return damage


xml = partial(replace, 'Annotations/*')
label = partial(replace, 'labels/train/*')
data_yaml = partial(write, 'data.yaml')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda r: shutil.rmtree(r / 'Annotations'), 'has no XML files'),
        (xml('<name>', '<nam'), 'not XML'),
        (
            xml('<xmin>', '<xmin>a'),
            r"train_1.xml: object 1 \(\w+\): <bndbox><xmin> is 'a\d+'",
        ),
        (xml('<xmin>', '<xmin>9999'), 'ends before it begins'),
        (
            xml('<bndbox>', '<bndbox><xmin>999</xmin><xmax>1000</xmax>'),
            'no area inside the 256x192 image',
        ),
        (lambda r: first(r, 'JPEGImages/*').unlink(), 'have no image train_1'),
        (write('JPEGImages/*', 'x'), 'not a readable image'),
        (
            write('ImageSets/Main/val.txt', 'gone\n'),
            "lists 1 name without an XML file: 'gone'",
        ),
        (
            xml('<xmin>', '<xmin>nan</xmin><xmin>'),
            "<xmin> is 'nan', not a number",
        ),
        (
            copy_image('JPEGImages/*', '.JPG'),
            'train_1.JPG and .*train_1.png would have the same annotations',
        ),
        (
            xml(
                '<object>',
                '<size><width>192</width><height>256</height></size><object>',
            ),
            'train_1.xml is for a 192x256 image, and .* is 256x192',
        ),
        (
            xml(
                '<annotation>',
                '<?xml version="1.0" encoding="gb2312"?><annotation>',
            ),
            'train_1.xml is not XML: multi-byte',
        ),
    ],
)
def test_voc_errors(voc, damage, message):
    damage(voc)
    with pytest.raises(UserError, match=message):
        read_voc(voc)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda r: (r / 'data.yaml').unlink(), 'no classes.txt'),
        (data_yaml('a: ['), 'is not YAML'),
        (
            data_yaml('names: {1: a}'),
            r'class \d, and there are 1 names \(1 to 1\): a',
        ),
        (
            data_yaml('names: [circle]'),
            r'\.txt:\d+: class \d, and there are 1 names',
        ),
        (
            label(' 0.', ' 7.'),
            r'000000.txt:1: coordinate 7\.\d+ is not in 0..1',
        ),
        (label(' 0.', ' x.'), 'is not a class number and coordinates'),
        (label(' 0.', ' 0.5 0.'), '5 coordinates; a box has 4'),
        (
            lambda r: [p.unlink() for p in r.glob('images/train/*[1-9]*')],
            r'5 of 6 label files in .* have no image .*: 000001.txt, 0',
        ),
        (lambda r: shutil.rmtree(r / 'images/val'), 'has no images'),
        (lambda r: shutil.rmtree(r / 'labels/train'), 'has no label files'),
        (
            data_yaml('names: {0: a, b: c}'),
            r"keys of names are 0, b, and 'b' is not the number",
        ),
        (
            data_yaml('kpt_shape: [17, 2]\nnames: [person]'),
            'data.yaml describes keypoints',
        ),
        (data_yaml('names: [on, off]'), 'a name is True, not a word'),
        (
            lambda r: first(r, 'labels/train/*').write_bytes(b'0 \xff'),
            'train/000000.txt is not UTF-8',
        ),
        (write('labels/train/*', '0 .5 .5 -.005 .5'), 'has no area'),
        (
            copy_image('images/val/*', '.jpeg'),
            'would have the same annotations',
        ),
    ],
)
def test_yolo_errors(yolo, damage, message):
    damage(yolo)
    with pytest.raises(UserError, match=message):
        read_yolo(yolo)


def test_classes_and_splits_that_are_not_there(voc):
    for classes, message in (
        (['starr'], "'starr'.*\n.*Did you mean 'star'"),
        (['star', 'star'], "'star' is named twice: star, star"),
    ):
        with pytest.raises(UserError, match=message):
            convert_folder(voc, classes=classes)
    write('ImageSets/Main/val.txt', '')(voc)
    with pytest.raises(UserError, match="split 'val' .* has no images"):
        convert_folder(voc)
    assert not (voc / 'annotations').exists()


def test_written_json_is_what_was_read(voc):
    read = read_voc(voc).splits['train']
    convert_folder(voc)
    file = voc / 'annotations/instances_train.json'
    content = json.loads(file.read_text())
    assert [i['file_name'] for i in content['images']] == [
        i.path.relative_to(voc).as_posix() for i in read
    ]
    for ann in content['annotations']:
        assert ann['area'] == pytest.approx(ann['bbox'][2] * ann['bbox'][3])
