# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the AP50 lost by each kind of error (TIDE).

python tools/analysis_tools/error_types.py work_dirs/a work_dirs/b
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
    parser.add_argument(
        'runs', nargs='+', help='work folders or COCO result files'
    )
    parser.add_argument('--ann', help='COCO annotation file')
    parser.add_argument('--classes', nargs='+', help='default: all it knows')
    parser.add_argument('--out', default='error_types', help='folder')
    args = parser.parse_args(argv)
    from mmext.evaluation.report.plots import plot_error_types
    from mmext.evaluation.sides import read_detections

    truth, runs, warnings = read_detections(args.runs, args.ann, args.classes)
    for warning in warnings:
        print(printable(f'Warning: {warning}'))
    for path in plot_error_types(runs, truth, args.out):
        print(printable(f'wrote {path}'))


if __name__ == '__main__':
    main()
