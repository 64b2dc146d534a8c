# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes COCO annotations for a YOLO folder.

python tools/dataset_converters/yolo2coco.py DIR [--out DIR]
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
    add('root', type=Path, help='holds images/, labels/ and the names')
    add('--out', type=Path, help='folder to write to; default: root')
    add('--classes', nargs='+', help='classes to keep; default: all')
    args = parser.parse_args(argv)

    from mmext.datasets.converters.common import class_names, write_coco_folder
    from mmext.datasets.converters.yolo import read_yolo

    splits, names = read_yolo(args.root)
    seen = class_names(splits)
    # A class without an example cannot be learned.
    names = args.classes or [n for n in names if n in seen]
    files = write_coco_folder(splits, names, args.root, args.out or args.root)
    for split, path in files.items():
        print(f'{path}: {len(splits[split])} images')


if __name__ == '__main__':
    main()
