# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes COCO annotations for a Pascal VOC folder.

python tools/dataset_converters/voc2coco.py VOCdevkit/VOC2007 [--out DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import command


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('root', type=Path, help='holds Annotations/ and JPEGImages/')
    add('--out', type=Path, help='folder to write to; default: root')
    add('--classes', nargs='+', help='classes to keep; default: all')
    add(
        '--zero-based',
        action='store_true',
        help='corners count from 0 (labelImg) and not from 1 (VOC)',
    )
    add(
        '--val-part',
        type=float,
        default=0.2,
        help='fraction held out if ImageSets/Main/{train,val}.txt are missing',
    )
    args = parser.parse_args(argv)

    from mmext.datasets.converters.common import class_names, write_coco_folder
    from mmext.datasets.converters.voc import read_voc

    splits = read_voc(args.root, args.zero_based, args.val_part)
    names = args.classes or sorted(class_names(splits))
    files = write_coco_folder(splits, names, args.root, args.out or args.root)
    for split, path in files.items():
        print(f'{path}: {len(splits[split])} images')


if __name__ == '__main__':
    main()
