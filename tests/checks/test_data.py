# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Damaged data sets: the findings, their counts, and the result of --fix."""

from __future__ import annotations

import contextlib
import io
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

from mmext.checks.annotations import Boxes
from mmext.checks.findings import Split
from mmext.checks.fix import fixed_files, write_fixed
from mmext.checks.images import read_image
from mmext.checks.masks import rle_runs
from mmext.checks.report import DataReport, keep, recall
from mmext.checks.splits import check_splits
from mmext.datasets.coco import read_coco
from mmext.datasets.converters.common import image_size
from mmext.errors import UserError

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
    return write_fixed(report, fixed_files(report.splits, out))


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
    (
        annotation(bbox=[WIDTH - 5, -9, 9, 19]),
        [warning('boxes over the edge')],
    ),
    (each(lambda a: a.pop('area')), [error('areas', 8)]),
    (annotation(area=0), [warning('areas')]),
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
    (entry('categories', 1, id=1), [error('ids'), error('unknown ids')]),
    (image(file_name='../../2.png'), [error('file names')]),
    (image(file_name='/etc/passwd'), [error('file names')]),
    (image(file_name='1.png'), [warning('file names')]),
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
    (annotation(segmentation=[[1, 2, 3, 4]]), [warning('masks')]),
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


def test_rle_is_read_as_pycocotools_reads_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.asfortranarray(rng.random((37, 53)) < rng.random())
        coded = rle.encode(mask.astype(np.uint8))['counts'].decode()
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate([[0], ends, [flat.size]]))
        if flat[0]:
            runs = np.concatenate([[0], runs])
        assert rle_runs(coded).tolist() == runs.tolist()


@pytest.mark.parametrize('counts', ['', 'é', '\x01', 'Z' * 40, 'o'])
def test_damaged_rle(counts):
    runs = rle_runs(counts)
    assert runs is None or runs.sum() != HEIGHT * WIDTH


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
    assert summary(check(data, turned=False)) == []


def test_a_result_without_errors_is_kept_until_a_file_changes(
    data, monkeypatch, tmp_path
):
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    splits = splits_of(data)
    assert recall(splits) is None
    report = check_splits(splits, every_image=True)
    keep(report)
    assert recall(splits) == list(report.findings)
    assert recall(splits_of(data, masks=True)) is None
    annotation(iscrowd=1)(data)
    assert recall(splits) is None
    annotation(image_id=99)(data)
    keep(check_splits(splits, every_image=True))
    assert recall(splits) is None, 'errors are not kept'
