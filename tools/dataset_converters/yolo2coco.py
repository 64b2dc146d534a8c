# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes COCO annotations beside those of a YOLO folder.

python tools/dataset_converters/yolo2coco.py DIR [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.datasets.converters import read_yolo, write_coco_folder
from mmext.errors import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('root', type=Path, help='holds images/, labels/ and the names')
    add('--out', type=Path, help='folder to write to; default: root')
    add('--classes', nargs='+', help='classes to keep; default: all')
    args = parser.parse_args()
    splits, names = read_yolo(args.root)
    objects = [
        o for images in splits.values() for i in images for o in i.objects
    ]
    seen = {o.name for o in objects}
    # A name that nothing has would be a class without an example.
    names = args.classes or [n for n in names if n in seen]
    files = write_coco_folder(splits, names, args.root, args.out or args.root)
    for split, path in files.items():
        print(f'{path}: {len(splits[split])} images')


if __name__ == '__main__':
    main()
