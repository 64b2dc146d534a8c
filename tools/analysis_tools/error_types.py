# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What kind of error costs how much AP50 (TIDE), as CSV and PNG.

python tools/analysis_tools/error_types.py work_dirs/a work_dirs/b
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.report.plots import plot_error_types
from mmext.evaluation.sides import (
    common_iou_type,
    find_ground_truth,
    make_side,
    name_apart,
    read_source,
)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'runs', nargs='+', help='work folders or COCO result files'
    )
    parser.add_argument('--ann', help='COCO annotation file')
    parser.add_argument('--out', default='error_types', help='folder')
    args = parser.parse_args(argv)
    sides = name_apart([make_side([read_source(p)]) for p in args.runs])
    iou_type = common_iou_type(sides)
    truth = find_ground_truth(sides, iou_type, args.ann)
    runs = [
        (
            side.name,
            read_predictions(side.predictions(iou_type)[0], truth, iou_type),
        )
        for side in sides
    ]
    for path in plot_error_types(runs, truth, args.out):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
