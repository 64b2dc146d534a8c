# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compare runs: the baseline first, then the candidates.

python tools/compare.py work_dirs/resnet work_dirs/stepnet
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.evaluation.comparison import comparison_table
from mmext.evaluation.runs import read_run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('runs', nargs='+', metavar='WORK_DIR')
    parser.add_argument('--iou-type', choices=('bbox', 'segm'))
    parser.add_argument('--which', choices=('last', 'best'), default='last')
    parser.add_argument('--markdown', action='store_true')
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    runs = [read_run(path, args.which) for path in args.runs]
    table = comparison_table(runs, args.iou_type)
    print(table.markdown() if args.markdown else table.text())


if __name__ == '__main__':
    main()
