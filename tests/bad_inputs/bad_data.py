# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad data: annotations and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from bad_input import World, bad
from tiny_run import MASK_HEADS, write_config

GROUP = 'Data'
DATASET = 'train_dataloader.dataset'


def masks(world: World) -> None:
    """Writes a tiny config of a mask detector."""
    base = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    write_config(world.config, world.data, base=base, more=MASK_HEADS)


@bad(GROUP, 'a data root that does not exist', 'nowhere/train.json')
def _(world: World) -> None:
    world.set(f'{DATASET}.data_root=nowhere')


@bad(GROUP, 'a misspelt annotation file', "Did you mean 'train.json'?")
def _(world: World) -> None:
    world.set(f'{DATASET}.ann_file=trian.json')


@bad(GROUP, 'an image folder that does not exist', 'data/val2017', "'val'?")
def _(world: World) -> None:
    world.set(f'{DATASET}.data_prefix.img=val2017')


@bad(GROUP, 'all images in another folder', '1.png')
def _(world: World) -> None:
    world.set(f'{DATASET}.data_prefix.img=')


@bad(GROUP, 'an image that is missing', 'data/train', '2.png')
def _(world: World) -> None:
    Path('data/train/2.png').unlink()
    world.train()


@bad(GROUP, "the evaluator's annotation file is missing", 'nothing.json')
def _(world: World) -> None:
    world.set('val_evaluator.ann_file=nothing.json')


@bad(GROUP, 'a truncated annotation file', 'is not JSON')
def _(world: World) -> None:
    file = world.data / 'train.json'
    file.write_text(file.read_text()[:200])
    world.train()


@bad(GROUP, 'an empty annotation file', 'is not JSON')
def _(world: World) -> None:
    (world.data / 'train.json').write_text('')
    world.train()


@bad(GROUP, 'an annotation file that is a binary file', 'is not JSON')
def _(world: World) -> None:
    (world.data / 'train.json').write_bytes(b'\x89PNG\xff\xfe')
    world.train()


@bad(
    GROUP, 'a result file instead of an annotation file', 'list of detections'
)
def _(world: World) -> None:
    found = {'image_id': 1, 'category_id': 1, 'bbox': [], 'score': 1.0}
    world.change(lambda content: [found])
    world.train()


@bad(GROUP, 'a LabelMe file instead of an annotation file', 'LabelMe')
def _(world: World) -> None:
    world.change(lambda content: {'shapes': [], 'imagePath': 'a.png'})
    world.train()


@bad(GROUP, 'no list of images', "'images'")
def _(world: World) -> None:
    world.change(lambda content: content.pop('images') and None)
    world.train()


@bad(GROUP, 'an empty list of images', "'images' is empty")
def _(world: World) -> None:
    world.change(lambda content: content['images'].clear())
    world.train()


@bad(GROUP, 'an empty list of categories', "'categories' is empty")
def _(world: World) -> None:
    world.change(lambda content: content['categories'].clear())
    world.train()


@bad(GROUP, 'annotations without boxes', 'bbox')
def _(world: World) -> None:
    world.change(lambda c: [a.pop('bbox') for a in c['annotations']] and None)
    world.train()


@bad(GROUP, 'class names in upper case', 'SQUARE', 'square')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for category in content['categories']:
            category['name'] = category['name'].upper()

    world.change(change)
    world.train()


@bad(GROUP, 'a misspelt class name', "'disk'", "Did you mean 'disc'?")
def _(world: World) -> None:
    config = world.config.read_text()
    world.config.write_text(
        config.replace(
            "classes=('square', 'disc')", "classes=('square', 'disk')"
        )
    )
    world.train()


@bad(GROUP, 'two categories with the same name', "'square'")
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['categories'][1]['name'] = 'square'

    world.change(change)
    world.train()


@bad(GROUP, 'no annotation of any chosen class', 'ring (6)')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['categories'].append({'id': 3, 'name': 'ring'})
        for annotation in content['annotations']:
            annotation['category_id'] = 3

    world.change(change)
    world.train()


@bad(GROUP, 'a mask detector on data with boxes only', 'mask', 'Faster R-CNN')
def _(world: World) -> None:
    masks(world)
    world.change(
        lambda c: [a.pop('segmentation') for a in c['annotations']] and None
    )
    world.train()


@bad(GROUP, 'a mask that cannot be decoded', 'masks cannot be read')
def _(world: World) -> None:
    masks(world)

    def change(content: dict) -> None:
        rle = {'size': [96, 128], 'counts': '~~damaged'}
        content['annotations'][0]['segmentation'] = rle

    world.change(change)
    world.train()


@bad(GROUP, 'a mask far outside its image', '1e+12 in an image of 128 x 96')
def _(world: World) -> None:
    masks(world)

    def change(content: dict) -> None:
        polygon = [0, 0, 1e12, 0, 9, 9]
        content['annotations'][0]['segmentation'] = [polygon]

    world.change(change)
    world.train()


@bad(GROUP, 'two images with the same id', 'occur more than once in images')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['images'][1]['id'] = 1

    world.change(change)
    world.train()


@bad(GROUP, 'two annotations with the same id', 'in annotations')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['annotations'][1]['id'] = 1

    world.change(change)
    world.train()


@bad(GROUP, 'an annotation of an unknown image', 'image_id', '77')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['annotations'][0]['image_id'] = 77

    world.change(change)
    world.train()


@bad(GROUP, 'an annotation of an unknown category', 'category_id', '99')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['annotations'][0]['category_id'] = 99

    world.change(change)
    world.train()


def box(world: World, value: object) -> None:
    def change(content: dict) -> None:
        content['annotations'][0]['bbox'] = value

    world.change(change)
    world.train()


@bad(GROUP, 'a box of three numbers', 'bbox', '[1, 2, 3]')
def _(world: World) -> None:
    box(world, [1, 2, 3])


@bad(GROUP, 'a box of strings', 'bbox')
def _(world: World) -> None:
    box(world, ['1', '2', '3', '4'])


@bad(GROUP, 'a box with NaN', 'bbox')
def _(world: World) -> None:
    box(world, [1, 2, float('nan'), 4])


@bad(GROUP, 'boxes of negative size', 'no box is left', '-')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for annotation in content['annotations']:
            annotation['bbox'][2] *= -1

    world.change(change)
    world.train()


@bad(GROUP, 'boxes as corners, x1 y1 x2 y2', '[x1, y1, x2, y2]')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for annotation in content['annotations']:
            x, y, w, h = annotation['bbox']
            annotation['bbox'] = [x, y, x + w, y + h]

    world.change(change)
    world.train()


@bad(GROUP, 'boxes as fractions of the image', 'fractions')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for annotation in content['annotations']:
            x, y, w, h = annotation['bbox']
            annotation['bbox'] = [x / 128, y / 96, w / 128, h / 96]

    world.change(change)
    world.train()


@bad(GROUP, 'an image size of zero', 'have no size')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['images'][0]['width'] = 0

    world.change(change)
    world.train()


@bad(GROUP, 'a file name that leaves the image folder', '../../etc/passwd')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['images'][0]['file_name'] = '../../etc/passwd'

    world.change(change)
    world.train()


@bad(GROUP, 'a truncated image', 'cannot be read', '1.png', quotes=True)
def _(world: World) -> None:
    file = world.data / 'train' / '1.png'
    file.write_bytes(file.read_bytes()[:500])
    world.train()


@bad(GROUP, 'a text file named as an image', 'cannot be read', quotes=True)
def _(world: World) -> None:
    (world.data / 'train' / '1.png').write_text('<html>404</html>')
    world.train()


@bad(GROUP, 'an annotation file that begins with a BOM', 'byte order mark')
def _(world: World) -> None:
    file = world.data / 'train.json'
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())
    world.train()


@bad(GROUP, 'an annotation file in GBK', 'is not UTF-8', 'iconv -f GBK')
def _(world: World) -> None:
    file = world.data / 'train.json'
    text = file.read_text().replace('"disc"', '"圆盘"')
    file.write_bytes(text.encode('gbk'))
    world.train()


@bad(GROUP, 'an annotation file in UTF-16', 'is UTF-16')
def _(world: World) -> None:
    file = world.data / 'train.json'
    file.write_text(file.read_text(), encoding='utf-16')
    world.train()


@bad(GROUP, 'ids that are strings', "'1', not a whole number", '5 more')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for annotation in content['annotations']:
            annotation['id'] = str(annotation['id'])

    world.change(change)
    world.train()


def rename(world: World, change: Callable[[str], str]) -> None:
    """Changes all file names in the annotations of the training data."""

    def names(content: dict) -> None:
        for image in content['images']:
            image['file_name'] = change(image['file_name'])

    world.change(names)
    world.train()


@bad(GROUP, "file names with Windows' backslashes", 'backslashes', 'sub/1.png')
def _(world: World) -> None:
    (world.data / 'train').rename(world.data / 'images')
    (world.data / 'train').mkdir()
    (world.data / 'images').rename(world.data / 'train' / 'sub')
    rename(world, lambda name: f'sub\\{name}')


@bad(GROUP, 'the image folder in the file names too', "data_prefix.img=''")
def _(world: World) -> None:
    rename(world, lambda name: f'train/{name}')


@bad(GROUP, 'accented letters as macOS writes them', 'NFC', r'\u0308')
def _(world: World) -> None:
    file = world.data / 'train' / '1.png'
    file.rename(file.with_name('u\u0308.png'))
    rename(world, lambda name: name.replace('1.png', '\u00fc.png'))


@bad(GROUP, "Roboflow's root as a category", 'root that Roboflow adds')
def _(world: World) -> None:
    def change(content: dict) -> None:
        for category in content['categories']:
            category['supercategory'] = 'disc'
        root = {'id': 0, 'name': 'disc', 'supercategory': 'none'}
        content['categories'].insert(0, root)

    world.change(change)
    world.train()


def corners(world: World, change: Callable[..., tuple]) -> None:
    """Changes the corners of all masks of the training data."""
    masks(world)

    def move(content: dict) -> None:
        for annotation in content['annotations']:
            (polygon,) = annotation['segmentation']
            places = zip(polygon[::2], polygon[1::2], strict=True)
            moved = [v for place in places for v in change(*place)]
            annotation['segmentation'] = [moved]

    world.change(move)
    world.train()


@bad(GROUP, 'masks with x and y exchanged', 'x and y seem to be exchanged')
def _(world: World) -> None:
    corners(world, lambda x, y: (y, x))


@bad(GROUP, 'masks as fractions of the image', 'to be fractions of the image')
def _(world: World) -> None:
    corners(world, lambda x, y: (x / 128, y / 96))


@bad(GROUP, 'masks of images of another size', '0.5 x 0.5 times as large')
def _(world: World) -> None:
    corners(world, lambda x, y: (x / 2, y / 2))


@bad(GROUP, 'a mask of two points in the validation data', 'would stop')
def _(world: World) -> None:
    masks(world)

    def change(content: dict) -> None:
        content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]

    world.change(change, 'val')
    world.train()


@bad(GROUP, 'an image of decimal numbers', 'float32 values to 8 bits')
def _(world: World) -> None:
    file = world.data / 'train' / '1.png'
    pixels = np.zeros((96, 128), np.float32)
    cv2.imwrite('1.tif', pixels)
    Path('1.tif').rename(file)
    world.train()


@bad(GROUP, 'validation data without a category of the training data', 'val')
def _(world: World) -> None:
    def change(content: dict) -> None:
        content['categories'].pop()
        content['annotations'] = [
            a for a in content['annotations'] if a['category_id'] == 1
        ]

    world.change(change, 'val')
    world.train()


@bad(GROUP, 'a folder without a data set', 'instances_train.json')
def _(world: World) -> None:
    from mmext.checks.layouts import find_coco_folder

    Path('photos').mkdir()
    find_coco_folder('photos')


def yolo(world: World, description: str = 'names: [square, disc]') -> Path:
    """Makes a YOLO folder of one image per split."""
    root = Path('yolo')
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / split / kind).mkdir(parents=True)
        image = root / split / 'images' / '1.png'
        image.write_bytes((world.data / split / '1.png').read_bytes())
        (root / split / 'labels' / '1.txt').write_text('0 .5 .5 .5 .5\n')
    (root / 'data.yaml').write_text(description)
    return root


@bad(GROUP, 'a folder that holds data sets', 'Give one of these: all/yolo')
def _(world: World) -> None:
    Path('all').mkdir()
    yolo(world).rename('all/yolo')
    world.tool('misc/check_data', 'all')


@bad(GROUP, 'a folder of LabelMe files', '3 JSON files of LabelMe')
def _(world: World) -> None:
    Path('labelme').mkdir()
    for name in 'abc':
        Path('labelme', f'{name}.json').write_text('{"shapes": []}')
    world.tool('dataset_converters/convert', 'labelme')


@bad(GROUP, 'two annotation files for a split', 'a_train.json, b_train.json')
def _(world: World) -> None:
    for name in 'ab':
        file = world.data / f'{name}_train.json'
        file.write_bytes((world.data / 'train.json').read_bytes())
    (world.data / 'train.json').unlink()
    world.tool('misc/check_data', 'data')


@bad(GROUP, 'a data.yaml whose folders do not exist', 'train: a/b')
def _(world: World) -> None:
    root = yolo(world, 'names: [square, disc]\ntrain: a/b\nval: a/c')
    world.tool('misc/check_data', root)


@bad(GROUP, 'a data.yaml with another number of names', 'nc: 80', '2 names')
def _(world: World) -> None:
    root = yolo(world, 'nc: 80\nnames: [square, disc]')
    world.tool('dataset_converters/yolo2coco', root)


@bad(GROUP, 'YOLO labels of other images', '2 of 3 label files', 'a.txt, b')
def _(world: World) -> None:
    root = yolo(world)
    for name in 'ab':
        (root / 'train/labels' / f'{name}.txt').write_text('0 .5 .5 .5 .5')
    world.tool('dataset_converters/yolo2coco', root)


@bad(GROUP, 'a list of YOLO images that do not exist', '2 images', '7.png')
def _(world: World) -> None:
    root = yolo(world, 'names: [square, disc]\ntrain: train.txt')
    (root / 'train.txt').write_text('train/images/7.png\n8.png\n')
    world.tool('misc/check_data', root)


@bad(GROUP, 'a blank line among the class names', 'line 2 is empty')
def _(world: World) -> None:
    root = yolo(world)
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_text('square\n\ndisc\n')
    world.tool('dataset_converters/yolo2coco', root)


@bad(GROUP, 'annotations that a conversion would replace', '--out DIR')
def _(world: World) -> None:
    root = yolo(world)
    (root / 'annotations').mkdir()
    (root / 'annotations/instances_val.json').write_text('{}')
    world.tool('dataset_converters/yolo2coco', root)


@bad(GROUP, 'a folder of VOC images that does not exist', "'photos'?")
def _(world: World) -> None:
    for name in ('boxes', 'photos'):
        Path('voc', name).mkdir(parents=True)
    Path('voc/boxes/1.xml').write_text('<annotation/>')
    options = ('--annotations', 'boxes', '--images', 'photo')
    world.tool('dataset_converters/voc2coco', 'voc', *options)


@bad(GROUP, 'a VOC folder without annotations', 'COCO annotations')
def _(world: World) -> None:
    world.tool('dataset_converters/voc2coco', 'data')


@bad(GROUP, 'a YOLO folder without labels', 'COCO annotations')
def _(world: World) -> None:
    world.tool('dataset_converters/yolo2coco', 'data')
