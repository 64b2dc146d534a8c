# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reports what a plan has shown, or what records show.

    mmext report plan.yaml --out report
    mmext report work_dirs/plan_a work_dirs/plan_b

A plan is decided at the looks that it names. Records without a plan give an
exploratory report; those of several studies also a mean over studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import UserError, command, printable
from mmext.utils.progress import progress_bar


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        'paths',
        nargs='+',
        metavar='PATH',
        help='a plan (.yaml), or records and folders of records',
    )
    add(
        '--work-dir', help="folder of the plan's runs; default: work_dirs/PLAN"
    )
    add('--baseline', help='side of the records; default: what they say')
    add(
        '--resamples',
        type=int,
        default=1000,
        help='draws of the images (default: 1000)',
    )
    add('--out', help='folder for report.html, report.md, CSV and LaTeX')
    args = parser.parse_args(argv)
    plans = [path for path in args.paths if _is_plan(path)]
    if plans and len(args.paths) > 1:
        raise UserError(
            f'{plans[0]} is a plan, and {len(args.paths)} paths were given',
            'Give one plan, or records alone: mmext report WORK_DIR WORK_DIR.',
        )
    if args.work_dir and not plans:
        parser.error('--work-dir is for a plan; name folders of records')
    if args.baseline and plans:
        parser.error('--baseline is for records; a plan names its baseline')
    if args.resamples < 100:
        parser.error('--resamples: give 100 or more')
    return args


def _is_plan(path: str) -> bool:
    return path.lower().endswith(('.yaml', '.yml'))


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.experiments.reports.ledger import report_records
    from mmext.experiments.reports.report import report_plan

    with progress_bar() as progress:
        options = {
            'resamples': args.resamples,
            'progress': progress,
        }
        if _is_plan(args.paths[0]):
            report = report_plan(args.paths[0], args.work_dir, **options)
        else:
            report = report_records(args.paths, args.baseline, **options)
    report.print()
    if args.out:
        page, text, *tables = report.write(args.out)
        print(
            printable(
                f'wrote {page}, {text} and {len(tables)} files of tables'
            )
        )


if __name__ == '__main__':
    main()
