# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares detectors: a baseline, then candidates.

A run is a work folder or a COCO result file (then give --ann). The comparison
has intervals if tools/test.py wrote predictions into the work folders.
Otherwise it is a table of the logged metrics.

    python tools/compare.py work_dirs/resnet work_dirs/stepnet
    python tools/compare.py --baseline runs/r50_s* --candidate runs/step_s* \\
        --out reports/stepnet
    python tools/compare.py a.bbox.json b.bbox.json --ann val.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('runs', nargs='*', metavar='RUN', help='baseline, then candidates')
    add('--baseline', nargs='+', default=[], help='runs, one a seed')
    add(
        '--candidate',
        nargs='+',
        action='append',
        default=[],
        help='runs, one a seed; repeat for more candidates',
    )
    add('--ann', help='COCO annotation file (default: what the runs name)')
    add(
        '--iou-type',
        choices=('bbox', 'segm'),
        help='boxes or masks (default: the first that every run has)',
    )
    add(
        '--which',
        choices=('last', 'best'),
        default='last',
        help='validation of logged metrics (default: last)',
    )
    add(
        '--resamples',
        type=int,
        default=1000,
        help='draws of the images (default: 1000)',
    )
    add('--level', type=float, default=0.95, help='of the intervals')
    add('--seed', type=int, default=0, help='of the resampling')
    add('--threads', type=int, default=2, help='default: 2')
    add('--quick', action='store_true', help='no AP by size')
    add('--logs', action='store_true', help='logged metrics, no intervals')
    add('--no-cost', action='store_true', help='no parameters and FLOPs')
    add('--latency', action='store_true', help='measure speed, batch 1 and 16')
    add('--verify', choices=('pycocotools',), help='check every metric')
    add('--out', help='folder for report.md, report.html, CSV and LaTeX')
    add('--images', help='folder of test images (default: from the config)')
    args = parser.parse_args(argv)
    if args.runs and (args.baseline or args.candidate):
        parser.error('give runs, or --baseline and --candidate, not both')
    if not args.runs and not (args.baseline and args.candidate):
        parser.error('give a baseline and at least one candidate')
    return args


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from rich.console import Console
    from rich.progress import Progress

    from mmext.evaluation.compare import compare
    from mmext.evaluation.sides import read_source

    groups = [[r] for r in args.runs] or [args.baseline, *args.candidate]
    sides = [[read_source(s, args.which) for s in group] for group in groups]
    runs = [run for side in sides for run in side]
    if args.logs or not any(run.predictions for run in runs):
        from mmext.evaluation.report.tables import logged_table, run_costs

        costs = None if args.no_cost else run_costs(runs)
        logged_table(runs, args.iou_type, costs).print(Console())
        print(
            'Logged metrics only. tools/test.py writes the predictions that '
            'intervals need.'
        )
        return
    with Progress(transient=True) as bar:
        task = bar.add_task('', total=1.0)
        report = compare(
            baseline=sides[0],
            candidates=sides[1:],
            ann=args.ann,
            iou_type=args.iou_type,
            resamples=args.resamples,
            level=args.level,
            seed=args.seed,
            quick=args.quick,
            threads=args.threads,
            cost=not args.no_cost,
            latency=args.latency,
            progress=lambda what, share: bar.update(
                task, description=what, completed=share
            ),
        )
    if args.verify:
        report.verify()
        print('Equal to pycocotools in every metric.')
    report.print()
    if args.out:
        for path in report.write(args.out, args.images):
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
