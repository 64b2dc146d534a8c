# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Predictions from which AP cannot be computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from bad_input import World, bad

GROUP = 'Predictions'


def compare(
    world: World,
    change: Callable[[list[dict]], object],
    options: Sequence[str] = (),
    **meta: object,
) -> None:
    """tools/compare.py with good predictions and changed ones."""
    truth = json.loads(Path('data/val.json').read_text())
    found = [
        {
            'image_id': a['image_id'],
            'category_id': a['category_id'],
            'bbox': a['bbox'],
            'score': 0.5,
        }
        for a in truth['annotations']
    ]
    Path('good.bbox.json').write_text(json.dumps(found))
    changed = change(found)
    text = (
        changed if isinstance(changed, str) else json.dumps(changed or found)
    )
    Path('bad.bbox.json').write_text(text)
    if meta:
        Path('bad.meta.json').write_text(json.dumps(meta))
    files = ('good.bbox.json', 'bad.bbox.json', '--ann', 'data/val.json')
    world.tool('compare', *files, *options)


def first(**values: object) -> Callable[[list[dict]], None]:
    """Changes the first detection."""
    return lambda found: found[0].update(values)


@bad(GROUP, 'a score of NaN', 'score nan')
def _(world: World) -> None:
    compare(world, first(score=float('nan')))


@bad(GROUP, 'an infinite score', 'score inf')
def _(world: World) -> None:
    compare(world, first(score=float('inf')))


@bad(GROUP, 'a predicted box of negative size', '-3')
def _(world: World) -> None:
    compare(world, first(bbox=[0, 0, -3, 5]))


@bad(GROUP, 'a prediction for an unknown image', 'image_id 99')
def _(world: World) -> None:
    compare(world, first(image_id=99))


@bad(GROUP, 'a prediction of an unknown category', 'category_id 0', '1')
def _(world: World) -> None:
    compare(world, first(category_id=0))


@bad(GROUP, 'predictions for other images', 'other images')
def _(world: World) -> None:
    def change(found: list[dict]) -> None:
        for entry in found:
            entry['image_id'] += 500

    compare(world, change)


@bad(GROUP, 'truncated predictions', 'truncated')
def _(world: World) -> None:
    compare(world, lambda found: json.dumps(found)[:-20])


@bad(GROUP, 'a file of metrics instead of predictions', 'metrics')
def _(world: World) -> None:
    compare(world, lambda found: {'coco/bbox_mAP': 0.4})


@bad(GROUP, 'an annotation file instead of predictions', 'annotation file')
def _(world: World) -> None:
    compare(world, lambda found: Path('data/val.json').read_text())


@bad(GROUP, 'predictions made for another ground truth', 'another ground')
def _(world: World) -> None:
    compare(world, lambda found: None, annotation_sha256='a' * 64)


@bad(GROUP, 'predictions without a ground truth', '--ann')
def _(world: World) -> None:
    Path('a.bbox.json').write_text('[]')
    world.tool('compare', 'a.bbox.json', 'a.bbox.json')


@bad(GROUP, 'a run that does not exist', 'nowhere')
def _(world: World) -> None:
    world.tool('compare', 'nowhere', 'data')


def grouped(world: World, spec: str, *options: str) -> None:
    """tools/compare.py with good predictions and groups of images."""
    compare(world, lambda found: None, ('--groups', spec, *options))


@bad(GROUP, 'groups by a field that no image has', 'no image of', 'file_name')
def _(world: World) -> None:
    grouped(world, 'filename')


@bad(GROUP, 'a pattern of groups that is no regular expression', 'regular')
def _(world: World) -> None:
    grouped(world, '^(.+_')


@bad(GROUP, 'groups by a pattern that a file name does not fit', 'no group')
def _(world: World) -> None:
    grouped(world, '^(scene.+)_')


@bad(GROUP, 'every image as a group of its own', 'several images')
def _(world: World) -> None:
    grouped(world, '^(.+)$')


@bad(GROUP, 'a file of groups with one column', 'row 1 has 1 column')
def _(world: World) -> None:
    Path('groups.csv').write_text('1\n2\n')
    grouped(world, 'groups.csv')


@bad(GROUP, 'an image in two groups', 'image 1 is in a and b')
def _(world: World) -> None:
    Path('groups.csv').write_text('1,a\n1,b\n')
    grouped(world, 'groups.csv')


@bad(GROUP, 'a folder of test images that does not exist', "'data'?")
def _(world: World) -> None:
    options = ('--images', 'dat', '--out', 'report')
    compare(world, lambda found: None, options)


@bad(GROUP, 'a folder of test images without a page', '--out FOLDER')
def _(world: World) -> None:
    compare(world, lambda found: None, ('--images', 'data'))


@bad(GROUP, 'a margin of no AP', 'margin is 0')
def _(world: World) -> None:
    grouped(world, 'id', '--margin', '0')


@bad(GROUP, 'predicted boxes as corners', '[x1, y1, x2, y2]')
def _(world: World) -> None:
    def change(found: list[dict]) -> None:
        for entry in found:
            x, y, w, h = entry['bbox']
            entry['bbox'] = [x, y, x + w, y + h]

    compare(world, change)


@bad(GROUP, 'predicted boxes from their centre', 'centre x, centre y')
def _(world: World) -> None:
    def change(found: list[dict]) -> None:
        for entry in found:
            x, y, w, h = entry['bbox']
            entry['bbox'] = [x + w / 2, y + h / 2, w, h]

    compare(world, change)


@bad(GROUP, 'predicted boxes as fractions', 'fractions of the image')
def _(world: World) -> None:
    def change(found: list[dict]) -> None:
        for entry in found:
            entry['bbox'] = [v / 128 for v in entry['bbox']]

    compare(world, change)


@bad(GROUP, 'predictions with names of images', "'1.png' is not a number")
def _(world: World) -> None:
    compare(world, first(image_id='1.png'))


@bad(GROUP, 'an unknown format of predictions', "Did you mean 'ultralytics'?")
def _(world: World) -> None:
    compare(world, lambda found: None, ('--format', 'ultralitics'))


@bad(GROUP, 'an unknown numbering of categories', 'count from 0 or 1')
def _(world: World) -> None:
    compare(world, lambda found: None, ('--categories', '2'))


def foreign(world: World, names: list[str], *options: str) -> None:
    """tools/compare.py with what Ultralytics writes, with these images."""

    def change(found: list[dict]) -> None:
        for i, entry in enumerate(found):
            entry['image_id'] = names[i % len(names)]
            entry['category_id'] = 1

    options = ('--format', 'bad.bbox.json=ultralytics', *options)
    compare(world, change, options)


@bad(GROUP, 'categories that may count from 0 or 1', '--categories')
def _(world: World) -> None:
    foreign(world, ['1'])


@bad(GROUP, 'a name of no image', "'img_9' is not the name of an image")
def _(world: World) -> None:
    foreign(world, ['img_9'], '--categories', '1')


@bad(GROUP, 'names of categories in no file', 'no file')
def _(world: World) -> None:
    foreign(world, ['1'], '--categories', 'bad.bbox.json=0:names.yaml')


@bad(GROUP, 'an unknown class to compare on', "Did you mean 'square'?")
def _(world: World) -> None:
    compare(world, lambda found: None, ('--classes', 'sqare'))


@bad(GROUP, 'runs that know different classes', 'no class in common')
def _(world: World) -> None:
    Path('good.meta.json').write_text('{"categories": {"1": "square"}}')
    compare(world, lambda found: None, categories={'2': 'disc'})
