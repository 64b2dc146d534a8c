# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes COCO annotations for a YOLO folder.

python tools/dataset_converters/yolo2coco.py DIR [--out DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_convert_options


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_convert_options(parser, 'holds images, labels and names, or is a YAML')
    args = parser.parse_args(argv)

    from mmext.datasets.converters.folder import convert_folder

    print(*convert_folder(kind='yolo', **vars(args)), sep='\n')


if __name__ == '__main__':
    main()
