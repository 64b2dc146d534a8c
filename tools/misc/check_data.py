# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds what is wrong with a data set before a training does.

    python tools/misc/check_data.py DIR      # a folder in COCO format
    python tools/misc/check_data.py CONFIG   # the data that a config names

Reads all annotations and decodes every image. Exit status 1 where a run would
stop.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmext.checks.tool import run
from mmext.errors import command
from mmext.utils.options import add_cfg_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('data', type=Path, help='folder in COCO format, or a config')
    add('--classes', nargs='+', help='of a folder; default: all')
    add(
        '--masks',
        action='store_true',
        help='of a folder: masks are needed too',
    )
    add(
        '--sample',
        action='store_true',
        help='decode a sample of the images, as a training does at its start',
    )
    add('--workers', type=int, help='threads; default: the cores')
    add(
        '--fix',
        type=Path,
        metavar='DIR',
        help='write mended copies of the annotations into this folder',
    )
    add_cfg_options(parser)
    return parser.parse_args()


@command
def main() -> None:
    sys.exit(run(parse_args()))


if __name__ == '__main__':
    main()
