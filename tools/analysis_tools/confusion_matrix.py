# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which class is taken for which, as CSV and PNG.

python tools/analysis_tools/confusion_matrix.py work_dirs/a
python tools/analysis_tools/confusion_matrix.py a.bbox.json --ann val.json
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.report.plots import plot_confusion
from mmext.evaluation.sides import (
    common_iou_type,
    find_ground_truth,
    make_side,
    read_source,
)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', help='work folder or COCO result file')
    parser.add_argument('--ann', help='COCO annotation file')
    parser.add_argument('--iou', type=float, default=0.5)
    parser.add_argument('--min-score', type=float, default=0.3)
    parser.add_argument('--out', default='confusion', help='folder')
    args = parser.parse_args(argv)
    side = make_side([read_source(args.run)])
    iou_type = common_iou_type([side])
    truth = find_ground_truth([side], iou_type, args.ann)
    preds = read_predictions(side.predictions(iou_type)[0], truth, iou_type)
    for path in plot_confusion(
        truth, preds, args.out, args.iou, args.min_score
    ):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
