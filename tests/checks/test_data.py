# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Damaged data sets: the findings, their counts, and the result of --fix."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hotcoco import COCO
from json_files import edit_json
from PIL import Image
from pycocotools import mask as rle
from tiny_run import HEIGHT, WIDTH, make_coco

from mmext.checks.boxes import Boxes
from mmext.checks.findings import Split
from mmext.checks.fix import fixed_files, write_fixed
from mmext.checks.image_facts import read_image
from mmext.checks.preflight import _check_large
from mmext.checks.report import DataReport, keep, recall
from mmext.checks.splits import check_splits
from mmext.datasets.coco import read_coco
from mmext.datasets.converters.common import image_size
from mmext.datasets.masks import rle_pixels
from mmext.errors import UserError
from mmext.utils.files import stamps

CORNER = [0, 0, 9, 0, 9, 9, 0, 9]


def splits_of(root: Path, **more) -> list[Split]:
    return [
        Split(
            name=name,
            ann_file=root / f'{name}.json',
            img_dir=root / name,
            training=name == 'train',
            root=root,
            **more,
        )
        for name in ('train', 'val')
    ]


def check(root: Path, **more) -> DataReport:
    return check_splits(splits_of(root, **more), every_image=True)


def fix(report: DataReport, out: Path) -> dict[Path, dict[str, int]]:
    return write_fixed(report, fixed_files(report.splits, out), out)


def summary(report: DataReport) -> list[tuple[str, str, str, int]]:
    return [
        (f.level, f.check, f.split, f.count)
        for f in report.findings
        if f.level != 'note'
    ]


def content(
    change: Callable[[dict], object], split: str = 'train'
) -> Callable[[Path], None]:
    """Returns a damage of an annotation file."""
    return lambda root: edit_json(root / f'{split}.json', change)


def entry(key: str, i: int, **values) -> Callable[[Path], None]:
    return content(lambda c: c[key][i].update(values))


image = partial(entry, 'images', 1)
annotation = partial(entry, 'annotations', 2)


def moved(box: list[int]) -> Callable[[Path], None]:
    """Moves an object, its mask with it."""
    x, y, w, h = box
    mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return annotation(bbox=box, segmentation=mask)


def each(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return content(lambda c: [change(a) for a in c['annotations']])


def corners(a: dict) -> None:
    x, y, w, h = a['bbox']
    a['bbox'] = [x, y, x + w, y + h]


def turned(orientation: int) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / 'train/2.png'
        picture = Image.open(path)
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)

    return damage


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp', '.bmp'])
@pytest.mark.parametrize('orientation', [0, 3, 6, 8, 9, 65535])
def test_sizes_are_those_that_opencv_decodes(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    """OpenCV applies EXIF in some formats, and some of its values."""
    path = tmp_path / f'a{suffix}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(50 * 30 * 3, dtype=np.uint8).reshape(30, 50, 3)
    Image.fromarray(pixels).save(path, exif=exif)
    fact, data = read_image(path), np.fromfile(path, np.uint8)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    flag = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = cv2.imdecode(data, flag)
    assert fact.size(turned=True) == shown.shape[1::-1]
    assert image_size(path) == shown.shape[1::-1]
    assert fact.size(turned=False) == stored.shape[1::-1]
    assert (fact.orientation in (0, 1)) == np.array_equal(shown, stored)


def turned_webp(root: Path) -> None:
    """OpenCV ignores the tag in WebP; the entry has the size as shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / 'train/2.png'
    Image.open(path).save(path, 'WEBP', lossless=True, exif=exif)
    image(width=HEIGHT, height=WIDTH)(root)


def similar_class(root: Path) -> None:
    category = {'id': 9, 'name': 'Disc '}
    for split in ('train', 'val'):
        content(lambda c: c['categories'].append(category), split)(root)


def truncated(root: Path) -> None:
    path = root / 'train/2.png'
    path.write_bytes(path.read_bytes()[:-2000])


def shrunk(root: Path) -> None:
    path = root / 'train/2.png'
    Image.open(path).resize((WIDTH // 2, HEIGHT // 2)).save(path)


def val_in_train(root: Path) -> None:
    """The same image with another name and format."""
    Image.open(root / 'val/1.png').save(root / 'train/2.bmp')
    (root / 'train/2.bmp').rename(root / 'train/2.png')


def polygons(change: Callable[..., tuple]) -> Callable[[Path], None]:
    """Changes each corner of each polygon, which has x and y."""

    def move(a: dict) -> None:
        (polygon,) = a['segmentation']
        corners = zip(polygon[::2], polygon[1::2], strict=True)
        a['segmentation'] = [[v for c in corners for v in change(*c)]]

    return each(move)


def polygons_in_val(mask: list) -> Callable[[Path], None]:
    return content(
        lambda c: c['annotations'][2].update(segmentation=mask), 'val'
    )


@content
def repeat_object(content: dict) -> None:
    """Other exporters write another id, and other rounding."""
    first = content['annotations'][0]
    box = [v + 0.01 for v in first['bbox']]
    content['annotations'].append({**first, 'id': 99, 'bbox': box})


def add_bom(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())


def renamed(listed: str, on_disk: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / 'train' / on_disk
        path.parent.mkdir(exist_ok=True)
        (root / 'train/2.png').rename(path)
        image(file_name=listed)(root)

    return damage


def in_each_image(change: Callable[[str], str]) -> Callable[[Path], None]:
    return content(
        lambda c: [
            i.update(file_name=change(i['file_name'])) for i in c['images']
        ]
    )


def with_root(name: str) -> Callable[[Path], None]:
    """Adds the category that Roboflow adds to each file."""

    def change(content: dict) -> None:
        for category in content['categories']:
            category['supercategory'] = name
        root = {'id': 0, 'name': name, 'supercategory': 'none'}
        content['categories'].insert(0, root)

    return lambda root: [content(change, s)(root) for s in ('train', 'val')]


def error(check: str, count: int = 1, split: str = 'train') -> tuple:
    return 'error', check, split, count


def warning(check: str, count: int = 1, split: str = 'train') -> tuple:
    return 'warning', check, split, count


FIXED = [
    (lambda root: None, []),
    (truncated, [error('images unreadable')]),
    (
        lambda root: (root / 'train/2.png').write_text('<html>'),
        [error('images unreadable')],
    ),
    (
        lambda root: (root / 'train/2.png').unlink(),
        [error('images missing')],
    ),
    (image(width=HEIGHT, height=WIDTH), [error('image sizes')]),
    (image(width=0), [error('image sizes'), warning('boxes outside', 2)]),
    (annotation(id=1), [error('ids')]),
    (content(lambda c: c['images'].append(c['images'][0])), [error('ids')]),
    (annotation(image_id=99), [error('unknown ids')]),
    (annotation(category_id=99), [error('unknown ids')]),
    (each(corners), [error('boxes as corners', 8)]),
    (annotation(bbox=[5, 5, 0, 9]), [warning('boxes degenerate')]),
    (annotation(bbox=[5, 5, 9, -9]), [warning('boxes degenerate')]),
    (annotation(bbox=[WIDTH + 5, 5, 9, 9]), [warning('boxes outside')]),
    (moved([WIDTH - 5, -9, 9, 19]), [warning('boxes over the edge')]),
    (each(lambda a: a.pop('area')), [error('areas', 8)]),
    (annotation(area=0), [warning('areas')]),
    (annotation(segmentation=[[1, 2, 3, 4]]), [warning('masks')]),
    (annotation(segmentation=[[1, 2, 9, 2, 9, 9, 1]]), [warning('masks')]),
    (polygons_in_val([[1, 2, 3, 4]]), [error('masks', split='val')]),
    (polygons_in_val([[]]), [error('masks', split='val')]),
    (repeat_object, [warning('objects twice')]),
    (
        content(lambda c: c['annotations'][2].update(id=0), 'val'),
        [warning('annotation id 0', split='val')],
    ),
    (lambda root: add_bom(root / 'train.json'), [error('encoding')]),
    (
        each(lambda a: a.update(image_id=float(a['image_id']))),
        [warning('ids', 8)],
    ),
    (renamed('sub\\2.png', 'sub/2.png'), [error('file names')]),
    (renamed('K\u00fche.png', 'Ku\u0308he.png'), [error('file names')]),
    (renamed('A.PNG', 'a.png'), [error('file names')]),
    (in_each_image(lambda n: f'train/{n}'), [error('file names', 4)]),
    (in_each_image(lambda n: f'C:\\data\\{n}'), [error('file names', 4)]),
    (
        with_root('disc'),
        [error('class names'), error('class names', split='val')],
    ),
    (
        with_root('cells'),
        [warning('class names'), warning('class names', split='val')],
    ),
    (
        content(lambda c: c['categories'].reverse(), 'val'),
        [error('class order', split='val')],
    ),
]
NOT_FIXED = [
    (shrunk, [error('image sizes')]),
    (image(width=2 * WIDTH, height=2 * HEIGHT), [error('image sizes')]),
    (turned(6), [error('EXIF rotation')]),
    (turned(3), [warning('EXIF rotation')]),
    (turned_webp, [error('image sizes')]),
    (
        similar_class,
        [
            warning('similar classes'),
            warning('class names'),  # it has no annotation
            warning('similar classes', split='val'),
        ],
    ),
    (entry('categories', 1, id=1), [error('ids'), error('unknown ids')]),
    (image(file_name='../../2.png'), [error('file names')]),
    (image(file_name='/etc/passwd'), [error('file names')]),
    (image(file_name='1.png'), [warning('file names')]),
    (
        each(lambda a: a.update(category_id=a['category_id'] - 1)),
        [error('unknown ids', 7), warning('class names')],
    ),
    (
        each(lambda a: a.update(image_id=a['image_id'] + 9, area=0)),
        [error('unknown ids', 8), warning('areas', 8)],
    ),
    (
        each(lambda a: a.update(bbox=[v / 128 for v in a['bbox']])),
        [error('boxes as fractions', 8)],
    ),
    (
        each(lambda a: a.update(bbox=[-50, -50, 9, 9])),
        [error('boxes degenerate', 8), warning('boxes outside', 8)],
    ),
    (each(lambda a: a.update(iscrowd=1)), [error('crowds', 8)]),
    (annotation(ignore=1), [warning('crowds')]),
    (annotation(segmentation=None), [error('masks')]),
    (polygons(lambda x, y: (y, x)), [error('masks elsewhere', 7)]),
    (
        polygons(lambda x, y: (x / WIDTH, y / HEIGHT)),
        [error('masks elsewhere', 8)],
    ),
    (polygons(lambda x, y: (x / 2, y / 2)), [error('masks elsewhere', 8)]),
    (
        annotation(segmentation=[[0, 0, 3, 0, 3, 3]]),
        [warning('masks elsewhere')],
    ),
    (
        content(lambda c: c['annotations'].clear(), 'val'),
        [warning('no objects', split='val')],
    ),
    (annotation(segmentation=[[1, 2, 'x', 4, 5, 6]]), [error('masks')]),
    (
        annotation(segmentation={'size': [3, 4], 'counts': [12]}),
        [error('masks')],
    ),
    (
        annotation(segmentation={'size': [HEIGHT, WIDTH], 'counts': 'zz'}),
        [error('masks')],
    ),
    (
        content(lambda c: c['categories'][0].update(name='sqare'), 'val'),
        [error('class order', split='val')],
    ),
    (val_in_train, [warning('overlap', split='val')]),
    (
        lambda root: shutil.copy(root / 'train/1.png', root / 'train/2.png'),
        [warning('images twice')],
    ),
]


def check_and_fix(data: Path, found: list[tuple]) -> dict[str, Path]:
    """Checks the findings and their report; returns the corrected files."""
    report = check(data, masks=True)
    assert summary(report) == found
    for level, name, split, count in found:
        line = next(x for x in str(report).split('\n') if f' {name}' in x)
        assert line.startswith(level)
        assert line.split()[-2 if split == 'train' else -1] == str(count)
    before = {f: f.read_bytes() for f in data.rglob('*.json')}
    written = fix(report, data / 'fixed')
    assert before == {f: f.read_bytes() for f in before}
    assert any(f.fixable for f in report.findings) >= bool(written)
    return {file.name: file for file in written}


@pytest.mark.parametrize(('damage', 'found'), FIXED)
def test_each_damage_is_found_alone_and_corrected(data, damage, found):
    damage(data)
    files = check_and_fix(data, found)
    assert bool(found) == bool(files)
    fixed = [
        replace(s, ann_file=files.get(s.ann_file.name, s.ann_file))
        for s in splits_of(data, masks=True)
    ]
    assert summary(check_splits(fixed, every_image=True)) == []


@pytest.mark.parametrize(('damage', 'found'), NOT_FIXED)
def test_each_damage_is_found_alone(data, damage, found):
    damage(data)
    check_and_fix(data, found)


@pytest.mark.parametrize('order', [1, -1])
def test_the_way_in_which_names_differ(data, order):
    """A reader sees the same name twice."""
    renamed(*['K\u00fche.png', 'Ku\u0308he.png'][::order])(data)
    (found,) = map(str, check(data).errors)
    assert 'one character (NFC) or as letter and accent (NFD)' in found
    assert 'K\\xfche.png' in found and 'Ku\\u0308he.png' in found


def test_a_prefix_that_is_in_the_names_already(data):
    in_each_image(lambda n: f'train/{n}')(data)
    (found,) = check(data).errors
    assert 'begin with train/' in found.problem
    assert found.remedy == "In the config: data_prefix.img=''."


def test_names_that_could_mean_two_files_are_not_guessed(data):
    (data / 'train/2.png').rename(data / 'train/a.png')
    shutil.copy(data / 'train/a.png', data / 'train/A.png')
    image(file_name='a.PNG')(data)
    assert [f.check for f in check(data).errors] == ['images missing']


def test_equal_boxes_with_other_masks_are_two_objects(data):
    @content
    def add(content: dict) -> None:
        first = content['annotations'][0]
        x, y, w, h = first['bbox']
        mask = [[x, y, x + w, y, x, y + h]]
        other = {**first, 'id': 99, 'segmentation': mask}
        content['annotations'].append(other)

    add(data)
    assert summary(check(data, masks=True)) == []
    assert summary(check(data)) == [warning('objects twice')]


def runs_of(flat: np.ndarray) -> np.ndarray:
    """Returns the lengths of runs; the first has zeros."""
    ends = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff([0, *ends, flat.size])


@pytest.mark.parametrize('kind', ['list', 'text'])
def test_rle_with_x_and_y_exchanged(data, kind):
    def change(a: dict) -> None:
        x, y, w, h = a['bbox']
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[y : y + h, x : x + w] = 1
        # By rows, where COCO counts by columns.
        runs = runs_of(mask.ravel()).tolist()
        coded = {'size': [HEIGHT, WIDTH], 'counts': runs}
        if kind == 'text':
            coded = rle.frPyObjects(coded, HEIGHT, WIDTH)
            coded['counts'] = coded['counts'].decode()
        a['segmentation'] = coded

    each(change)(data)
    found = summary(check(data, masks=True))
    assert error('masks elsewhere', 8) in found


def test_categories_in_another_order_than_their_ids(data):
    """The corrected file has the same labels, and ids in their order."""

    def change(content: dict) -> None:
        new = {1: 7, 2: 3}
        for category in content['categories']:
            category['id'] = new[category['id']]
        for a in content['annotations']:
            a['category_id'] = new[a['category_id']]

    before = read_coco(data / 'val.json')
    content(change, 'val')(data)
    report = check(data)
    assert [f.check for f in report.findings] == ['category order']
    fix(report, data / 'fixed')
    assert read_coco(data / 'fixed/val.json') == before
    assert summary(check(data / 'fixed')) == []


def test_the_fixed_folder_can_be_used_alone(data):
    """It has both files, and links to the images."""
    repeat_object(data)
    fix(check(data), data / 'fixed')
    again = check(data / 'fixed')
    assert summary(again) == []
    assert len(again.facts) == 9


def test_links_never_lead_to_the_original_annotations(data):
    """Of annotation files among the images, as Roboflow writes them."""

    def check_inside(root: Path) -> DataReport:
        splits = [
            replace(s, ann_file=s.img_dir / 'a.json') for s in splits_of(root)
        ]
        return check_splits(splits, every_image=True)

    for name in ('train', 'val'):
        (data / f'{name}.json').rename(data / name / 'a.json')
    train = data / 'train/a.json'
    add_bom(train)
    before = train.read_bytes()
    fix(check_inside(data), data / 'fixed')
    assert train.read_bytes() == before
    assert summary(check_inside(data / 'fixed')) == []


def test_16_bit_images_differ_in_their_low_bits(data):
    """12-bit values in 16-bit files: OpenCV keeps 0 to 15 of 255."""
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint16)
    for i, path in enumerate(sorted(data.rglob('*.png'))):
        cv2.imwrite(str(path), flat + 256 + i)
    report = check(data)
    assert summary(report) == [
        warning('image depth', 4),
        warning('image depth', 5, 'val'),
    ]
    assert 'uint16' in report.findings[0].problem
    assert 'become 1 to 2 of 255' in report.findings[-1].problem
    assert summary(check(data, color_type='unchanged')) == []
    shutil.copy(data / 'val/1.png', data / 'train/1.png')
    assert warning('overlap', split='val') in summary(check(data))


def test_float_images_that_opencv_cannot_convert(data):
    pixels = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32)
    _, coded = cv2.imencode('.tif', pixels.reshape(HEIGHT, WIDTH))
    coded.tofile(data / 'train/2.png')
    report = check(data)
    assert summary(report) == [error('images unreadable')]
    assert 'float32' in report.findings[0].problem
    assert cv2.imdecode(coded, cv2.IMREAD_COLOR) is None
    # A pipeline that keeps the values can read it.
    assert summary(check(data, color_type='unchanged')) == []


def test_an_image_with_more_pixels_than_pillow_reads(data, monkeypatch):
    """OpenCV reads it, so that it must not be removed."""
    turned(6)(data)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(data / 'train/2.png')
    assert read_image(data / 'train/2.png').size(True) == (HEIGHT, WIDTH)
    assert image_size(data / 'train/2.png') == (HEIGHT, WIDTH)
    report = check(data)
    assert summary(report) == [error('EXIF rotation')]
    assert fix(report, data / 'fixed') == {}


def test_an_image_with_a_damaged_part_is_kept(data):
    """Pillow stops at it, and OpenCV reads the rest."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (24, 32, 3), np.uint8)
    pixels = cv2.resize(small, (WIDTH, HEIGHT))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(
        stream, 'TIFF', compression='tiff_adobe_deflate', strip_size=WIDTH * 12
    )
    strips = Image.open(stream).tag_v2[273]  # where they begin
    content = bytearray(stream.getvalue())
    content[strips[-2] : strips[-2] + 20] = b'\xff' * 20
    path = data / 'train/2.png'
    path.write_bytes(content)
    rows = (cv2.imread(str(path)) != pixels[..., ::-1]).any((1, 2))
    assert rows.sum() == 4
    report = check(data)
    assert summary(report) == [warning('images damaged')]
    assert fix(report, data / 'fixed') == {}


@pytest.mark.parametrize(
    ('part', 'found'),
    [(0.05, warning('images damaged')), (0.5, error('images unreadable'))],
)
def test_a_truncated_image_that_opencv_fills(data, monkeypatch, part, found):
    """OpenCV before 4.12 fills the rest of a JPEG with grey."""
    path = data / 'train/2.png'
    ok, coded = cv2.imencode('.jpg', cv2.imread(str(path)))
    whole = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    whole[round(HEIGHT * (1 - part)) :] = 128
    coded[: round(len(coded) * (1 - part))].tofile(path)
    monkeypatch.setattr(
        'mmext.checks.image_facts.decode',
        lambda d, flags: whole if d[0] == 0xFF else cv2.imdecode(d, flags),
    )
    assert summary(check(data)) == [found]


def test_counts_are_those_of_hotcoco(data):
    """hotcoco is an independent implementation."""

    def damage(content: dict) -> None:
        a = content['annotations']
        a[0]['bbox'] = [5, 5, 0, 9]
        a[1]['bbox'] = [WIDTH - 5, 5, 20, 9]
        a[2]['bbox'] = [WIDTH + 50, 5, 20, 9]
        a[3]['category_id'] = 7
        a[4]['image_id'] = 70
        a[6]['id'] = a[5]['id']

    edit_json(data / 'train.json', damage)
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = COCO(str(data / 'train.json')).healthcheck()
    theirs = {
        f['code']: len(f['affected_ids'])
        for f in theirs['errors'] + theirs['warnings']
    }
    ours = {f.check: f.count for f in check(data).findings}
    assert ours['boxes degenerate'] == theirs['degenerate_bbox'] == 1
    assert theirs['bbox_out_of_bounds'] == 2
    assert ours['boxes outside'] == ours['boxes over the edge'] == 1
    assert ours['ids'] == theirs['duplicate_ann_id'] == 1
    both = theirs['orphan_image_id'] + theirs['orphan_category_id']
    unknown = [f for f in check(data).findings if f.check == 'unknown ids']
    assert sum(f.count for f in unknown) == both == 2


def test_boxes_as_corners_are_converted_back(data):
    want = [a['bbox'] for a in read_coco(data / 'train.json')['annotations']]
    each(corners)(data)
    assert Boxes(read_coco(data / 'train.json')).as_corners
    fix(check(data), data / 'fixed')
    fixed = read_coco(data / 'fixed/train.json')
    assert [a['bbox'] for a in fixed['annotations']] == want


def test_a_box_is_cut_at_the_edge_and_its_area_with_it(data):
    entry('annotations', 0, bbox=[-4, 90, 10, 10], segmentation=[])(data)
    fix(check(data), data / 'fixed')
    first = read_coco(data / 'fixed/train.json')['annotations'][0]
    assert first['bbox'] == [0, 90, 6, 6]
    assert first['area'] == 36


def test_a_corrected_area_is_that_of_the_mask(data):
    entry('annotations', 0, area=0, segmentation=[[0, 0, 8, 0, 8, 8]])(data)
    fix(check(data), data / 'fixed')
    first = read_coco(data / 'fixed/train.json')['annotations'][0]
    triangle = rle.frPyObjects([[0, 0, 8, 0, 8, 8]], HEIGHT, WIDTH)
    assert first['area'] == rle.area(triangle)[0]
    assert 24 <= first['area'] <= 40


def test_the_input_is_never_overwritten(data):
    each(corners)(data)
    with pytest.raises(UserError, match='exists already'):
        fix(check(data), data)


def test_pixels_of_run_length_encodings():
    """As pycocotools writes them, between damaged ones."""
    rng = np.random.default_rng(0)
    coded, expected = [], []
    for damaged in ['', 'é', '\x01', 'Z' * 40, 'o', '0000000Z'] * 5:
        height, width = rng.integers(1, 90, 2)
        mask = np.asfortranarray(rng.random((height, width)) < rng.random())
        coded += [
            damaged,
            rle.encode(mask.astype(np.uint8))['counts'].decode(),
        ]
        expected.append(height * width)
    pixels = rle_pixels(coded)
    assert pixels[1::2].tolist() == expected
    assert (pixels[::2] <= 0).all()
    assert [rle_pixels([code])[0] for code in coded] == pixels.tolist()
    assert rle_pixels([]).shape == (0,)


def test_a_sample_finds_the_overlap_by_the_files_bytes(data):
    shutil.copy(data / 'val/3.png', data / 'train/1.png')
    report = check_splits(splits_of(data))
    assert summary(report) == [warning('overlap', split='val')]
    (overlap,) = (f for f in report.findings if f.check == 'overlap')
    assert '/val/3.png is ' in overlap.problem


def test_a_missing_file_among_too_many_to_look_for(tmp_path, monkeypatch):
    """Only a sample is looked for; the check of overlap skips the others."""
    data = make_coco(tmp_path, 8, 2)
    monkeypatch.setattr('mmext.checks.splits.STAT_LIMIT', 5)
    monkeypatch.setattr('mmext.checks.splits.SAMPLE', 2)
    (data / 'train/2.png').unlink()
    shutil.copy(data / 'val/1.png', data / 'train/3.png')
    report = check_splits(splits_of(data))
    assert summary(report) == [warning('overlap', split='val')]


def test_images_that_are_not_turned(data):
    """The remedy in the message works."""
    turned(6)(data)
    kind = 'color_ignore_orientation'
    assert summary(check(data, color_type=kind)) == []


def overwritten(root: Path) -> None:
    """Replaces the pixels of a file; size and time of writing stay."""
    path = root / 'train/sub/2.png'
    old, data = path.stat(), path.read_bytes()
    with open(path, 'r+b') as file:
        file.write(bytes(len(data)))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_mtime_ns == old.st_mtime_ns


@pytest.fixture
def deep(data, monkeypatch, tmp_path) -> Path:
    """A data set with an image in a sub-folder, and an empty cache."""
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    (data / 'train/sub').mkdir()
    (data / 'train/2.png').rename(data / 'train/sub/2.png')
    image(file_name='sub/2.png')(data)
    return data


@pytest.mark.parametrize(
    'change',
    [
        annotation(iscrowd=1),
        overwritten,
        lambda root: (root / 'train/sub/2.png').unlink(),
        lambda root: (root / 'val/5.png').write_bytes(b'other'),
        lambda root: shutil.copy2(root / 'val/1.png', root / 'val/2.png'),
        lambda root: shutil.move(root / 'val', root / 'validation'),
    ],
)
def test_a_result_is_kept_until_any_file_changes(deep, change):
    splits = splits_of(deep)
    assert recall(splits) is None
    report = check_splits(splits, every_image=True)
    keep(report)
    assert recall(splits) == list(report.findings)
    assert recall(splits_of(deep, masks=True)) is None
    change(deep)
    assert recall(splits) is None


def test_errors_are_kept_too(deep):
    """A run stops with what the check of all images found."""
    splits = splits_of(deep)
    (deep / 'val/5.png').unlink()
    keep(check_splits(splits, every_image=True))
    assert [f.check for f in recall(splits)] == ['images missing']
    shutil.copy(deep / 'val/4.png', deep / 'val/5.png')
    assert recall(splits) is None


def test_a_file_that_changed_while_it_was_checked(deep):
    splits = splits_of(deep)
    report = check_splits(splits, every_image=True)
    overwritten(deep)
    keep(report)
    assert recall(splits) is None


def test_a_kept_result_of_many_images(tmp_path, monkeypatch):
    """Two system calls would double the time with 120,000 images."""
    paths = [str(tmp_path / f'{i}') for i in range(4500)]
    for path in paths[::9]:
        Path(path).touch()
    calls = []
    real = os.stat
    monkeypatch.setattr(os, 'stat', lambda p: calls.append(p) or real(p))
    found = stamps(paths)
    assert sorted(calls) == sorted(paths)
    assert [f is not None for f in found] == [i % 9 == 0 for i in range(4500)]


def test_a_large_file_is_checked_for_what_mmdet_cannot_read(data):
    (val,) = splits_of(data)[1:]
    content(lambda c: c['annotations'][2].update(id=0), 'val')(data)
    assert [f.check for f in _check_large(val)] == [
        'annotation id 0',
        'annotations',
    ]
    add_bom(val.ann_file)
    assert [f.check for f in _check_large(val)] == ['encoding']
