# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad data: annotations and images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bad_input import World, mistake
from tiny_run import MASK_HEADS, MASK_RCNN, write_config

bad = partial(mistake, 'Data')


def dataset(title: str, option: str) -> None:
    """Registers an option of the training set."""
    option = f'train_dataloader.dataset.{option}'
    bad(title)(lambda world: world.set(option))


def file(title: str, name: str, content: bytes, *quotes: str) -> None:
    """Registers the content of a file in ``data/``."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        (world.data / name).write_bytes(content)
        world.train()


def truncated(title: str, name: str, size: int, *quotes: str) -> None:
    """Registers the first bytes of a file in ``data/``."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        path = world.data / name
        path.write_bytes(path.read_bytes()[:size])
        world.train()


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


@content('annotations without boxes')
def _(content: dict) -> None:
    for annotation in content['annotations']:
        annotation.pop('bbox')


@content('class names in upper case')
def _(content: dict) -> None:
    for category in content['categories']:
        category['name'] = category['name'].upper()


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


@content('a mask detector on data with boxes only', mask=True)
def _(content: dict) -> None:
    for annotation in content['annotations']:
        annotation.pop('segmentation')


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


@content('boxes of negative size')
def _(content: dict) -> None:
    for annotation in content['annotations']:
        annotation['bbox'][2] *= -1


@content('boxes as corners, x1 y1 x2 y2')
def _(content: dict) -> None:
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x, y, x + w, y + h]


@content('boxes as fractions of the image')
def _(content: dict) -> None:
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x / 128, y / 96, w / 128, h / 96]


image('an image size of zero', width=0)
image('a file name that leaves the image folder', file_name='../../etc/passwd')
truncated('a truncated image', 'train/1.png', 500, 'cannot be read', '1.png')
file(
    'a text file named as an image',
    'train/1.png',
    b'<html>404</html>',
    'cannot be read',
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


@bad('a VOC folder without annotations')
def _(world: World) -> None:
    world.tool('dataset_converters/voc2coco', 'data')


@bad('a YOLO folder without labels')
def _(world: World) -> None:
    world.tool('dataset_converters/yolo2coco', 'data')
