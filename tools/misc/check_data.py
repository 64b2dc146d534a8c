# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks a data set before a training.

    python tools/misc/check_data.py DIR      # of COCO, YOLO or VOC
    python tools/misc/check_data.py CONFIG   # the data that a config names

Reads all annotations and decodes every image. The exit status is 1 if there is
an error. Runs use the result until a file changes, and stop with the same
errors; without it they decode a sample of the images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('data', help='folder of COCO, YOLO or VOC, or a config')
    add('--classes', nargs='+', help='classes of a folder; default: all')
    add(
        '--masks',
        action='store_true',
        help='require a mask of every annotation of a folder',
    )
    add(
        '--sample',
        action='store_true',
        help='decode a sample of the images, as a training does at its start',
    )
    add('--workers', type=int, help='threads; default: the number of CPUs')
    add(
        '--fix',
        metavar='DIR',
        help='write corrected copies of the annotations into this folder,\n'
        'with links to the images',
    )
    add_cfg_options(parser)
    args = parser.parse_args(argv)

    from mmext.checks.data import check_data

    report = check_data(**vars(args), progress=True)
    print(report)
    if report.errors:
        sys.exit(1)


if __name__ == '__main__':
    main()
