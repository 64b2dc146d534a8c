# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Predictions from which AP cannot be computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bad_input import World, mistake

bad = partial(mistake, 'Predictions')


def predictions(
    title: str,
    change: Callable[[list[dict]], object],
    *options: str,
    **meta: object,
) -> None:
    """Registers a change of good predictions, or the text that it returns.

    ``options`` are those of the tool, ``meta`` is the file beside them.
    """

    @bad(title)
    def _(world: World) -> None:
        truth = json.loads(Path('data/val.json').read_text())
        keys = ('image_id', 'category_id', 'bbox')
        found = [
            {**{key: a[key] for key in keys}, 'score': 0.5}
            for a in truth['annotations']
        ]
        Path('good.bbox.json').write_text(json.dumps(found))
        changed = change(found) or json.dumps(found)
        Path('bad.bbox.json').write_text(changed)
        if meta:
            Path('bad.meta.json').write_text(json.dumps(meta))
        files = ('good.bbox.json', 'bad.bbox.json', '--ann', 'data/val.json')
        world.tool('compare', *files, *options)


def first(title: str, **values: object) -> None:
    """Registers values of the first detection."""
    predictions(title, lambda found: found[0].update(values))


def option(title: str, *options: str) -> None:
    """Registers options of the tool."""
    predictions(title, lambda found: None, *options)


def boxes(title: str, change: Callable[..., list[float]]) -> None:
    """Registers a change of x, y, width and height of each box."""

    def each(found: list[dict]) -> None:
        for entry in found:
            entry['bbox'] = change(*entry['bbox'])

    predictions(title, each)


def other_images(found: list[dict]) -> None:
    for entry in found:
        entry['image_id'] += 500


first('a score of NaN', score=float('nan'))
first('an infinite score', score=float('inf'))
first('a predicted box of negative size', bbox=[0, 0, -3, 5])
first('a prediction for an unknown image', image_id=99)
first('a prediction of an unknown category', category_id=0)
predictions('predictions for other images', other_images)
predictions('truncated predictions', lambda found: json.dumps(found)[:-20])
predictions(
    'two lists of predictions in one file', lambda found: json.dumps(found) * 2
)
predictions(
    'predictions inside of an object',
    lambda found: json.dumps({'predictions': found}),
)
predictions(
    'a file of metrics instead of predictions',
    lambda found: '{"coco/bbox_mAP": 0.4}',
)
predictions(
    'an annotation file instead of predictions',
    lambda found: Path('data/val.json').read_text(),
)
predictions(
    'predictions made for another ground truth',
    lambda found: None,
    annotation_sha256='a' * 64,
)


@bad('predictions without a ground truth')
def _(world: World) -> None:
    Path('a.bbox.json').write_text('[]')
    world.tool('compare', 'a.bbox.json', 'a.bbox.json')


@bad('a run that does not exist')
def _(world: World) -> None:
    world.tool('compare', 'nowhere', 'data')


def groups(title: str, spec: str, table: str = '') -> None:
    """Registers groups of images, or the content of ``groups.csv``."""

    def change(found: list[dict]) -> None:
        if table:
            Path('groups.csv').write_text(table)

    predictions(title, change, '--groups', spec)


groups('groups by a field that no image has', 'filename')
groups('a pattern of groups that is no regular expression', '^(.+_')
groups('groups by a pattern that a file name does not fit', '^(scene.+)_')
groups('every image as a group of its own', '^(.+)$')
groups('a file of groups with one column', 'groups.csv', '1\n2\n')
groups('an image in two groups', 'groups.csv', '1,a\n1,b\n')
option(
    'a folder of test images that does not exist',
    *('--images', 'dat', '--out', 'report'),
)
option('a folder of test images without a page', '--images', 'data')
option('a margin of no AP', '--groups', 'id', '--margin', '0')
boxes('predicted boxes as corners', lambda x, y, w, h: [x, y, x + w, y + h])
boxes(
    'predicted boxes from their centre',
    lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
)
boxes('predicted boxes as fractions', lambda *box: [v / 128 for v in box])
first('predictions with names of images', image_id='1.png')
option('an unknown format of predictions', '--format', 'ultralitics')
option(
    'a format of a file that is not compared',
    *('--format', 'runs/bad.json=ultralytics'),
)
option('an unknown numbering of categories', '--categories', '2')


def foreign(title: str, name: str, *options: str) -> None:
    """Registers what Ultralytics writes, all of one image."""

    def change(found: list[dict]) -> None:
        for entry in found:
            entry.update(image_id=name, category_id=1)

    kind = ('--format', 'bad.bbox.json=ultralytics')
    predictions(title, change, *kind, *options)


foreign('categories that may count from 0 or 1', '1')
foreign('a name of no image', 'img_9', '--categories', '1')
foreign(
    'names of categories in no file',
    '1',
    *('--categories', 'bad.bbox.json=0:names.yaml'),
)
option('an unknown class to compare on', '--classes', 'sqare')


def only_squares(found: list[dict]) -> None:
    Path('good.meta.json').write_text('{"categories": {"1": "square"}}')


predictions(
    'runs that know different classes', only_squares, categories={'2': 'disc'}
)


def masks(title: str, mask: object, true: object) -> None:
    """Registers a predicted mask, and one of the annotation file."""

    @bad(title)
    def _(world: World) -> None:
        truth = json.loads(Path('data/val.json').read_text())
        found = []
        for entry in truth['annotations']:
            entry['segmentation'] = true
            keys = ('image_id', 'category_id')
            known = {key: entry[key] for key in keys}
            found.append({**known, 'score': 0.5, 'segmentation': mask})
        Path('masks.json').write_text(json.dumps(truth))
        Path('a.segm.json').write_text(json.dumps(found))
        runs = ('a.segm.json', 'a.segm.json')
        world.tool('compare', *runs, '--ann', 'masks.json')


NEAR, FAR = ([[0, 0, v, 0, v, v]] for v in (9, 1e9))
masks('a predicted polygon far outside of its image', FAR, NEAR)
masks('a polygon to compare with far outside of its image', NEAR, FAR)
predictions('predictions of thousands of levels', lambda found: '[' * 100_000)
predictions('a meta file with a wrong type', lambda found: None, test=[1])


@bad('a meta file that names a device as the annotations')
def _(world: World) -> None:
    Path('a.bbox.json').write_text('[]')
    Path('a.meta.json').write_text('{"annotation_file": "/dev/zero"}')
    world.tool('compare', 'a.bbox.json', 'a.bbox.json')


@bad('a pipe instead of predictions')
def _(world: World) -> None:
    os.mkfifo('a.bbox.json')
    world.tool('compare', 'a.bbox.json', 'a.bbox.json')


@bad('a file name of 5,000 characters')
def _(world: World) -> None:
    world.tool('image_demo', 'tiny.py', 'a.pth', 'x' * 5000)
