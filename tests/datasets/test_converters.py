# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Shapes written as VOC and YOLO come back as the COCO that they were."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmext.datasets.coco_folder import find_coco_folder
from mmext.datasets.converters import (
    read_voc,
    read_yolo,
    write_coco_folder,
)
from mmext.datasets.shapes import CLASSES, write_shapes
from mmext.errors import UserError

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'


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
        shutil.copy(
            shapes / split / record['file_name'],
            root / 'JPEGImages' / f'{stem}.png',
        )
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
    names = '\n'.join(f'  {i}: {name}' for i, name in enumerate(CLASSES))
    for split, record, anns in labelled(shapes):
        for name in ('images', 'labels'):
            (root / name / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(
            shapes / split / record['file_name'], root / 'images' / split
        )
        lines = []
        for a in anns:
            (x, y, w, h), (W, H) = a['bbox'], (256, 192)
            values = [(x + w / 2) / W, (y + h / 2) / H, w / W, h / H]
            if split == 'val':
                polygon = max(a['segmentation'], key=len)
                values = [
                    v / side
                    for v, side in zip(
                        polygon, [W, H] * (len(polygon) // 2), strict=True
                    )
                ]
            lines.append(
                ' '.join(
                    [str(a['category_id'] - 1), *(f'{v:.8f}' for v in values)]
                )
            )
        (root / 'labels' / split / Path(record['file_name']).stem).with_suffix(
            '.txt'
        ).write_text('\n'.join(lines) + '\n')
    (root / 'data.yaml').write_text(f'names:\n{names}\n')
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


def run(tool: str, monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    runpy.run_path(str(TOOLS / tool), run_name='__main__')


def test_voc_round_trip(shapes, voc, monkeypatch, capsys):
    run('voc2coco.py', monkeypatch, voc)
    assert 'instances_val.json: 6 images' in capsys.readouterr().out
    for split in ('train', 'val'):
        assert boxes(voc, split) == boxes(shapes, split)
    found = find_coco_folder(voc)
    assert found.classes == tuple(sorted(CLASSES))
    assert found.img_dirs['train'] == str(voc)


def test_voc_from_another_folder_copies_images(voc, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    run('voc2coco.py', monkeypatch, voc, '--out', out, '--classes', 'star')
    assert find_coco_folder(out).classes == ('star',)
    assert len(list((out / 'JPEGImages').iterdir())) == 12


def test_zero_based_corners_make_a_box_one_pixel_less_shifted(voc):
    one = read_voc(voc)['train'][0].objects[0].bbox
    zero = read_voc(voc, zero_based=True)['train'][0].objects[0].bbox
    assert zero[0] == one[0] + 1
    assert zero[2] == one[2] - 1


def test_voc_splits_by_itself_without_lists(voc):
    shutil.rmtree(voc / 'ImageSets')
    first, second = read_voc(voc, val_part=0.25), read_voc(voc, val_part=0.25)
    assert first == second
    assert [len(first[s]) for s in ('train', 'val')] == [9, 3]
    names = [i.path.name for s in first.values() for i in s]
    assert len(set(names)) == 12
    for part in (0, 1, -0.2, float('nan')):
        with pytest.raises(UserError, match='no part of the images'):
            read_voc(voc, val_part=part)


def test_difficult_objects_are_ignored(voc):
    path = sorted((voc / 'Annotations').glob('*.xml'))[0]
    path.write_text(path.read_text().replace('>0<', '>1<', 1))
    splits = read_voc(voc)
    assert (
        sum(o.ignore for s in splits.values() for i in s for o in i.objects)
        == 1
    )


def test_yolo_round_trip(shapes, yolo, monkeypatch):
    run('yolo2coco.py', monkeypatch, yolo)
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
    path = sorted((yolo / 'labels/train').iterdir())[0]
    path.unlink()
    splits, names = read_yolo(yolo)
    assert splits['train'][0].objects == []
    assert names == list(CLASSES)


def test_a_picture_lying_on_its_side_has_its_sides_exchanged(yolo):
    path = sorted((yolo / 'images/train').iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    image = read_yolo(yolo)[0]['train'][0]
    assert (image.width, image.height) == (192, 256)


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def replace(root: Path, pattern: str, old: str, new: str) -> None:
    path = first(root, pattern)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda r: shutil.rmtree(r / 'Annotations'), 'has no XML files'),
        (lambda r: replace(r, 'Annotations/*', '<name>', '<nam'), 'not XML'),
        (
            lambda r: replace(r, 'Annotations/*', '<xmin>', '<xmin>a'),
            r"train_1.xml: object 1 \(\w+\): <bndbox><xmin> is 'a\d+'",
        ),
        (
            lambda r: replace(r, 'Annotations/*', '<xmin>', '<xmin>9999'),
            'ends before it begins',
        ),
        (
            lambda r: [
                replace(r, 'Annotations/*', f'<{c}>', f'<{c}>9999')
                for c in ('xmin', 'xmax')
            ],
            'no area inside the 256x192 image',
        ),
        (lambda r: first(r, 'JPEGImages/*').unlink(), 'has no image train_1'),
        (
            lambda r: first(r, 'JPEGImages/*').write_text('x'),
            'not a readable image',
        ),
        (
            lambda r: (r / 'ImageSets/Main/val.txt').write_text('gone\n'),
            "lists 'gone'",
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
        (lambda r: (r / 'data.yaml').write_text('a: ['), 'is not YAML'),
        (
            lambda r: (r / 'data.yaml').write_text('names: {1: a}'),
            r'keys of names are \[1\]',
        ),
        (
            lambda r: (r / 'data.yaml').write_text('names: [circle]'),
            r'\.txt:\d+: class \d, and there are 1 names',
        ),
        (
            lambda r: replace(r, 'labels/train/*', ' 0.', ' 7.'),
            r'000000.txt:1: coordinate 7\.\d+ is not in 0..1',
        ),
        (
            lambda r: replace(r, 'labels/train/*', ' 0.', ' x.'),
            'is not a class number and coordinates',
        ),
        (
            lambda r: replace(r, 'labels/train/*', ' 0.', ' 0.5 0.'),
            '5 coordinates: a box has 4',
        ),
        (lambda r: first(r, 'images/train/*').unlink(), 'has no image in'),
        (lambda r: shutil.rmtree(r / 'images/val'), 'has no images'),
    ],
)
def test_yolo_errors(yolo, damage, message):
    damage(yolo)
    with pytest.raises(UserError, match=message):
        read_yolo(yolo)


def test_an_unknown_class_writes_nothing(voc):
    splits = read_voc(voc)
    with pytest.raises(UserError, match="'starr'.*\n.*Did you mean 'star'"):
        write_coco_folder(splits, ['starr'], voc, voc)
    with pytest.raises(UserError, match="split 'val' .* has no images"):
        write_coco_folder(splits | {'val': []}, ['star'], voc, voc)
    assert not (voc / 'annotations').exists()


def test_the_tool_ends_with_the_message(voc, monkeypatch, capsys):
    (voc / 'ImageSets/Main/val.txt').write_text('gone\n')
    with pytest.raises(SystemExit) as stop:
        run('voc2coco.py', monkeypatch, voc)
    assert stop.value.code == 2
    assert "lists 'gone'" in capsys.readouterr().err


def test_written_json_is_what_was_read(voc):
    splits = read_voc(voc)
    files = write_coco_folder(splits, sorted(CLASSES), voc, voc)
    content = json.loads(files['train'].read_text())
    assert [i['file_name'] for i in content['images']] == [
        i.path.relative_to(voc).as_posix() for i in splits['train']
    ]
    for ann in content['annotations']:
        assert ann['area'] == pytest.approx(ann['bbox'][2] * ann['bbox'][3])
