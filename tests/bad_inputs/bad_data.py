# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad data: annotations and images."""

from __future__ import annotations

from pathlib import Path

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


@bad(GROUP, 'a VOC folder without annotations', 'Annotations')
def _(world: World) -> None:
    world.tool('dataset_converters/voc2coco', 'data')


@bad(GROUP, 'a YOLO folder without labels', 'data')
def _(world: World) -> None:
    world.tool('dataset_converters/yolo2coco', 'data')
