# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Cuts out objects as a classification data set.

python tools/dataset_converters/coco2imagefolder.py ANN_FILE IMG_DIR OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('ann_file', help='COCO JSON')
    parser.add_argument('img_dir', help='folder of its images')
    parser.add_argument('out', help='folder to make, one folder a class')
    parser.add_argument(
        '--margin',
        type=float,
        default=0.1,
        help="context on each side, in the box's sides (default 0.1)",
    )
    parser.add_argument(
        '--min-size',
        type=int,
        default=8,
        help='objects with a shorter side are left out, pixels (default 8)',
    )
    args = parser.parse_args(argv)

    from mmext.datasets.crops import write_crops

    for name, count in write_crops(**vars(args)).items():
        print(f'{count:7d}  {name}')


if __name__ == '__main__':
    main()
