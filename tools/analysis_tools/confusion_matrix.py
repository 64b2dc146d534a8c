# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws which classes objects are taken for.

python tools/analysis_tools/confusion_matrix.py work_dirs/a
python tools/analysis_tools/confusion_matrix.py a.bbox.json --ann val.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command, printable


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', help='work folder or COCO result file')
    parser.add_argument('--ann', help='COCO annotation file')
    parser.add_argument('--classes', nargs='+', help='default: all it knows')
    parser.add_argument(
        '--iou',
        type=float,
        default=0.5,
        help='lowest IoU of a match (default: 0.5)',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=0.3,
        help='lowest score of a detection (default: 0.3)',
    )
    parser.add_argument('--out', default='confusion', help='folder')
    args = parser.parse_args(argv)
    from mmext.evaluation.report.plots import plot_confusion
    from mmext.evaluation.sides import read_detections

    truth, [(_, preds)], warnings = read_detections(
        [args.run], args.ann, args.classes
    )
    for warning in warnings:
        print(printable(f'Warning: {warning}'))
    for path in plot_confusion(
        truth, preds, args.out, args.iou, args.min_score
    ):
        print(printable(f'wrote {path}'))


if __name__ == '__main__':
    main()
