# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad data: annotations and images."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from bad_input import World, mistake
from tiny_run import MASK_HEADS, MASK_RCNN, write_config

bad = partial(mistake, 'Data')
CHECK = 'misc/check_data'
VOC, YOLO = (f'dataset_converters/{kind}2coco' for kind in ('voc', 'yolo'))


def dataset(title: str, option: str) -> None:
    """Registers an option of the training set."""
    option = f'train_dataloader.dataset.{option}'
    bad(title)(lambda world: world.set(option))


def changed(
    title: str, name: str, change: Callable[[bytes], bytes], *quotes: str
) -> None:
    """Registers a change of the content of a file in ``data/``."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        path = world.data / name
        path.write_bytes(change(path.read_bytes()))
        world.train()


def file(title: str, name: str, content: bytes, *quotes: str) -> None:
    """Registers the content of a file in ``data/``."""
    changed(title, name, lambda old: content, *quotes)


def truncated(title: str, name: str, size: int, *quotes: str) -> None:
    """Registers the first bytes of a file in ``data/``."""
    changed(title, name, lambda old: old[:size], *quotes)


def content(
    title: str, split: str = 'train', mask: bool = False
) -> Callable[[Callable[[dict], object]], None]:
    """Registers a function that changes the content of ``train.json``.

    Args:
        title: The mistake.
        split: Another annotation file to change. Default: ``'train'``.
        mask: Whether a mask detector is trained. Default: False.
    """

    def register(change: Callable[[dict], object]) -> None:
        @bad(title)
        def _(world: World) -> None:
            if mask:
                kind = {'base': MASK_RCNN, 'more': MASK_HEADS}
                write_config(world.config, world.data, **kind)
            world.change(change, split)
            world.train()

    return register


def each(
    title: str,
    change: Callable[[dict], object],
    key: str = 'annotations',
    mask: bool = False,
) -> None:
    """Registers a change of every entry of a list of ``train.json``."""
    content(title, mask=mask)(lambda c: [change(entry) for entry in c[key]])


def boxes(title: str, change: Callable[..., list[float]]) -> None:
    """Registers a change of all boxes."""
    each(title, lambda a: a.update(bbox=change(*a['bbox'])))


def entry(title: str, key: str, index: int = 0, **values: object) -> None:
    """Registers values of one entry of a list of ``train.json``."""
    mask = 'segmentation' in values
    content(title, mask=mask)(lambda c: c[key][index].update(values))


annotation = partial(entry, key='annotations')
image = partial(entry, key='images')

dataset('a data root that does not exist', 'data_root=nowhere')
dataset('a misspelt annotation file', 'ann_file=trian.json')
dataset('an image folder that does not exist', 'data_prefix.img=val2017')
dataset('all images in another folder', 'data_prefix.img=')


@bad('an image that is missing')
def _(world: World) -> None:
    Path('data/train/2.png').unlink()
    world.train()


@bad("the evaluator's annotation file is missing")
def _(world: World) -> None:
    world.set('val_evaluator.ann_file=nothing.json')


truncated('a truncated annotation file', 'train.json', 200)
file('an empty annotation file', 'train.json', b'')
file(
    'an annotation file that is a binary file',
    'train.json',
    b'\x89PNG\xff\xfe',
)
file(
    'a result file instead of an annotation file',
    'train.json',
    b'[{"image_id": 1, "category_id": 1, "bbox": [], "score": 1.0}]',
)
file(
    'a LabelMe file instead of an annotation file',
    'train.json',
    b'{"shapes": [], "imagePath": "a.png"}',
)
content('no list of images')(lambda c: c.pop('images'))
content('an empty list of images')(lambda c: c['images'].clear())
content('an empty list of categories')(lambda c: c['categories'].clear())


each('annotations without boxes', lambda a: a.pop('bbox'))
each(
    'class names in upper case',
    lambda c: c.update(name=c['name'].upper()),
    'categories',
)


@bad('a misspelt class name')
def _(world: World) -> None:
    config = world.config.read_text()
    old = "classes=('square', 'disc')"
    world.config.write_text(config.replace(old, "classes=('square', 'disk')"))
    world.train()


entry('two categories with the same name', 'categories', 1, name='square')


@content('no annotation of any chosen class')
def _(content: dict) -> None:
    content['categories'].append({'id': 3, 'name': 'ring'})
    for annotation in content['annotations']:
        annotation['category_id'] = 3


each(
    'a mask detector on data with boxes only',
    lambda a: a.pop('segmentation'),
    mask=True,
)
annotation(
    'a mask that cannot be decoded',
    segmentation={'size': [96, 128], 'counts': '~~damaged'},
)
annotation(
    'a mask far outside its image', segmentation=[[0, 0, 1e12, 0, 9, 9]]
)
image('two images with the same id', index=1, id=1)
annotation('two annotations with the same id', index=1, id=1)
annotation('an annotation of an unknown image', image_id=77)
annotation('an annotation of an unknown category', category_id=99)
annotation('a box of three numbers', bbox=[1, 2, 3])
annotation('a box of strings', bbox=['1', '2', '3', '4'])
annotation('a box with NaN', bbox=[1, 2, float('nan'), 4])


boxes('boxes of negative size', lambda x, y, w, h: [x, y, -w, h])
boxes('boxes as corners, x1 y1 x2 y2', lambda x, y, w, h: [x, y, x + w, y + h])
boxes(
    'boxes as fractions of the image',
    lambda x, y, w, h: [x / 128, y / 96, w / 128, h / 96],
)
image('an image size of zero', width=0)
image('a file name that leaves the image folder', file_name='../../etc/passwd')
truncated('a truncated image', 'train/1.png', 500, 'cannot be read', '1.png')
file(
    'a text file named as an image',
    'train/1.png',
    b'<html>404</html>',
    'cannot be read',
)
changed(
    'an annotation file that begins with a BOM',
    'train.json',
    lambda old: b'\xef\xbb\xbf' + old,
)
changed(
    'an annotation file in GBK',
    'train.json',
    lambda old: old.replace(b'"disc"', '"圆盘"'.encode('gbk')),
)
changed('an annotation file that is compressed', 'train.json', gzip.compress)
changed(
    'an annotation file in UTF-16',
    'train.json',
    lambda old: old.decode().encode('utf-16'),
)


each('ids that are strings', lambda a: a.update(id=str(a['id'])))


def rename(world: World, change: Callable[[str], str]) -> None:
    """Changes all file names in the annotations of the training data."""

    def names(content: dict) -> None:
        for image in content['images']:
            image['file_name'] = change(image['file_name'])

    world.change(names)
    world.train()


@bad("file names with Windows' backslashes")
def _(world: World) -> None:
    Path('data/train').rename('sub')
    Path('data/train').mkdir()
    Path('sub').rename('data/train/sub')
    rename(world, lambda name: f'sub\\{name}')


@bad('the image folder in the file names too')
def _(world: World) -> None:
    rename(world, lambda name: f'train/{name}')


@bad('accented letters as macOS writes them')
def _(world: World) -> None:
    Path('data/train/1.png').rename('data/train/u\u0308.png')
    rename(world, lambda name: name.replace('1.png', '\u00fc.png'))


@content("Roboflow's root as a category")
def _(content: dict) -> None:
    for category in content['categories']:
        category['supercategory'] = 'disc'
    root = {'id': 0, 'name': 'disc', 'supercategory': 'none'}
    content['categories'].insert(0, root)


def corners(title: str, change: Callable[[float, float], tuple]) -> None:
    """Registers a change of the corners of all masks."""

    def move(annotation: dict) -> None:
        (polygon,) = annotation['segmentation']
        places = zip(polygon[::2], polygon[1::2], strict=True)
        polygon[:] = [v for place in places for v in change(*place)]

    each(title, move, mask=True)


corners('masks with x and y exchanged', lambda x, y: (y, x))
corners('masks as fractions of the image', lambda x, y: (x / 128, y / 96))
corners('masks of images of another size', lambda x, y: (x / 2, y / 2))


@content('a mask of two points in the validation data', 'val', mask=True)
def _(content: dict) -> None:
    content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]


file(
    'an image of decimal numbers',
    'train/1.png',
    cv2.imencode('.tif', np.zeros((96, 128), np.float32))[1].tobytes(),
)


@content('validation data without a category of the training data', 'val')
def _(content: dict) -> None:
    content['categories'].pop()
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] == 1
    ]


@bad('a folder without a data set')
def _(world: World) -> None:
    from mmext.checks.layouts import find_coco_folder

    Path('photos').mkdir()
    find_coco_folder('photos')


def yolo_folder(world: World, root: Path) -> None:
    """Makes a YOLO folder of one image per split."""
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / split / kind).mkdir(parents=True)
        shutil.copy(world.data / split / '1.png', root / split / 'images')
        (root / split / 'labels/1.txt').write_text('0 .5 .5 .5 .5')
    (root / 'data.yaml').write_text('names: [square, disc]')


def yolo(title: str, files: dict[str, str], tool: str = YOLO) -> None:
    """Registers files of a good YOLO folder; an empty one is removed."""

    @bad(title)
    def _(world: World) -> None:
        root = Path('yolo')
        yolo_folder(world, root)
        for name, text in files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
            if not text:
                (root / name).unlink()
        world.tool(tool, root)


@bad('a folder that holds data sets')
def _(world: World) -> None:
    yolo_folder(world, Path('all/yolo'))
    world.tool(CHECK, 'all')


each(
    'category ids from 0 in the annotations alone',
    lambda a: a.update(category_id=a['category_id'] - 1),
)


@bad('a folder of LabelMe files')
def _(world: World) -> None:
    Path('labelme').mkdir()
    for name in 'abc':
        Path('labelme', f'{name}.json').write_text('{"shapes": []}')
    world.tool('dataset_converters/convert', 'labelme')


@bad('two annotation files for a split')
def _(world: World) -> None:
    for name in 'ab':
        shutil.copy('data/train.json', f'data/{name}_train.json')
    Path('data/train.json').unlink()
    world.tool(CHECK, 'data')


yolo(
    'a data.yaml whose folders do not exist',
    {'data.yaml': 'names: [square, disc]\ntrain: a/b\nval: a/c'},
    CHECK,
)
yolo(
    'a data.yaml with another number of names',
    {'data.yaml': 'nc: 80\nnames: [square, disc]'},
)
yolo(
    'YOLO labels of other images',
    {f'train/labels/{name}.txt': '0 .5 .5 .5 .5' for name in 'ab'},
)
yolo(
    'a list of YOLO images that do not exist',
    {
        'data.yaml': 'names: [square, disc]\ntrain: train.txt',
        'train.txt': 'train/images/7.png\n8.png\n',
    },
    CHECK,
)


yolo(
    'a blank line among the class names',
    {'data.yaml': '', 'classes.txt': 'square\n\ndisc\n'},
)
yolo(
    'annotations that a conversion would replace',
    {'annotations/instances_val.json': '{}'},
)


yolo(
    'two orders of class names of YOLO',
    {
        'data.yaml': '',
        'train/labels/classes.txt': 'square\ndisc\n',
        'val/labels/classes.txt': 'disc\nsquare\n',
    },
    CHECK,
)
yolo(
    'a data.yaml whose names are one word',
    {'data.yaml': 'names: square'},
)
yolo(
    'errors in several YOLO labels',
    {
        'train/labels/1.txt': '0 20 10 30 20',
        'val/labels/1.txt': '1 .5 .5 1.2 .2',
    },
)
yolo(
    'keypoints as YOLO labels',
    {'train/labels/1.txt': '0 .5 .5 .4 .4' + ' .4 .4 1 .6 .6 0' * 2},
)


@bad('VOC files without objects')
def _(world: World) -> None:
    Path('voc/Annotations').mkdir(parents=True)
    shutil.copytree(world.data / 'train', 'voc/JPEGImages')
    for image in Path('voc/JPEGImages').iterdir():
        file = Path('voc/Annotations', f'{image.stem}.xml')
        file.write_text('<annotation/>')
    world.tool(CHECK, 'voc')


@bad('a folder of VOC images that does not exist')
def _(world: World) -> None:
    for name in ('boxes', 'photos'):
        Path('voc', name).mkdir(parents=True)
    Path('voc/boxes/1.xml').write_text('<annotation/>')
    options = ('--annotations', 'boxes', '--images', 'photo')
    world.tool(VOC, 'voc', *options)


@bad('a VOC folder without annotations')
def _(world: World) -> None:
    world.tool(VOC, 'data')


@bad('a YOLO folder without labels')
def _(world: World) -> None:
    world.tool(YOLO, 'data')


def named(title: str, section: str, key: str, value: str) -> None:
    """Registers a name in the annotation file."""

    @content(title)
    def _(content: dict) -> None:
        content[section][0][key] = value


named(
    'escape sequences in the name of a class',
    *('categories', 'name', 'square\x1b]0;title\x07'),
)
named('a line break in the name of an image', 'images', 'file_name', 'a\n.png')
named('an image name of 5,000 characters', 'images', 'file_name', 'x' * 5000)


@bad('a pipe instead of an annotation file')
def _(world: World) -> None:
    (world.data / 'train.json').unlink()
    os.mkfifo(world.data / 'train.json')
    world.train()


LAUGHS = [f'a{i + 1}: &a{i + 1} [*a{i}, *a{i}]' for i in range(25)]
yolo(
    'a data.yaml whose aliases stand for millions of values',
    {'data.yaml': '\n'.join(['a0: &a0 [ha, ha]', *LAUGHS])},
)
yolo(
    'a data.yaml of thousands of levels',
    {'data.yaml': f'names: {"[" * 5000}'},
)
