# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes COCO annotations for a COCO, YOLO or VOC folder.

    python tools/dataset_converters/convert.py DIR [--out DIR]

Finds out in which format and layout the folder is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_convert_options, add_voc_options


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_convert_options(parser, 'the folder, or the YAML file of YOLO')
    add_voc_options(parser)
    args = parser.parse_args(argv)

    from mmext.datasets.converters.folder import convert_folder

    print(*convert_folder(**vars(args)), sep='\n')


if __name__ == '__main__':
    main()
