# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the training curves of runs.

python tools/analysis_tools/plot_curves.py work_dirs/a work_dirs/b
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
        'runs', nargs='+', metavar='WORK_DIR', help='folders of trainings'
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        default=['loss', 'coco/bbox_mAP'],
        help='logged values (default: loss coco/bbox_mAP)',
    )
    parser.add_argument('--out', default='curves', help='folder')
    args = parser.parse_args(argv)
    from mmext.evaluation.report.plots import plot_curves
    from mmext.evaluation.runs import read_run

    runs = [read_run(path) for path in args.runs]
    for path in plot_curves(runs, args.out, args.keys):
        print(printable(f'wrote {path}'))


if __name__ == '__main__':
    main()
