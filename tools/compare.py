# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compare detectors: the baseline first, then the candidates.

A run is a work folder, or a COCO result file (then give --ann). Work folders
that tools/test.py has been in have predictions, and the comparison has
intervals; without predictions it is the table of logged metrics.

    python tools/compare.py work_dirs/resnet work_dirs/stepnet
    python tools/compare.py --baseline runs/r50_s* --candidate runs/step_s* \\
        --out reports/stepnet
    python tools/compare.py a.bbox.json b.bbox.json --ann val.json
"""

from __future__ import annotations

import argparse
import math

from rich.console import Console
from rich.progress import Progress

from mmext.errors import UserError, command
from mmext.evaluation.coco.matches import AREAS
from mmext.evaluation.coco.verify import verify
from mmext.evaluation.cost.complexity import config_complexity
from mmext.evaluation.cost.latency import config_latency
from mmext.evaluation.report.console import print_report, print_table
from mmext.evaluation.report.content import Report, evaluate
from mmext.evaluation.report.logged import comparison_table
from mmext.evaluation.report.write import write_report
from mmext.evaluation.sides import (
    Side,
    common_iou_type,
    find_ground_truth,
    make_side,
    name_apart,
    read_source,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
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
    add('--iou-type', choices=('bbox', 'segm'))
    add('--which', choices=('last', 'best'), default='last')
    add('--resamples', type=int, default=1000)
    add('--level', type=float, default=0.95, help='of the intervals')
    add('--seed', type=int, default=0, help='of the resampling')
    add('--threads', type=int, default=2)
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
    if not 0.5 <= args.level < 1:
        parser.error(f'--level is {args.level}; give a share such as 0.95')
    if args.threads < 1:
        parser.error(f'--threads is {args.threads}; give 1 or more')
    fewest = max(100, math.ceil(2 / (1 - args.level) - 1e-6))
    if args.resamples < fewest:
        parser.error(
            f'--resamples is {args.resamples}; give {fewest} or more for '
            f'--level {args.level:g}'
        )
    return args


def read_sides(args: argparse.Namespace) -> list[Side]:
    groups = [[r] for r in args.runs] or [args.baseline, *args.candidate]
    return name_apart(
        [make_side([read_source(p, args.which) for p in g]) for g in groups]
    )


def make_report(sides: list[Side], args: argparse.Namespace) -> Report:
    iou_type = args.iou_type or common_iou_type(sides)
    truth = find_ground_truth(sides, iou_type, args.ann)
    configs = [side.runs[0].config for side in sides]
    costs = [
        config_complexity(c) if c and not args.no_cost else None
        for c in configs
    ]
    latencies = [
        config_latency(c) if c and args.latency else [] for c in configs
    ]
    with Progress(transient=True) as bar:
        task = bar.add_task('', total=1.0)
        return evaluate(
            sides,
            truth,
            iou_type,
            resamples=args.resamples,
            level=args.level,
            seed=args.seed,
            areas=('all',) if args.quick else tuple(AREAS),
            threads=args.threads,
            progress=lambda what, share: bar.update(
                task, description=what, completed=share
            ),
            costs=costs,
            latencies=latencies,
        )


@command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    console = Console()
    sides = read_sides(args)
    runs = [run for side in sides for run in side.runs]
    if args.logs or not any(run.predictions for run in runs):
        costs = [None] * len(runs) if args.no_cost else None
        print_table(comparison_table(runs, args.iou_type, costs), console)
        console.print(
            'Logged metrics only. tools/test.py writes the predictions that '
            'intervals need.'
        )
        return
    if len(sides) < 2:
        raise UserError('one run is no comparison', 'Add a candidate.')
    report = make_report(sides, args)
    if args.verify:
        columns = [report.comparisons[0].baseline]
        columns += [c.candidate for c in report.comparisons]
        for side, values in zip(report.sides, columns, strict=True):
            for i, preds in enumerate(side.predictions):
                metrics = {m: float(v[i]) for m, v in values.items()}
                verify(report.truth, preds, metrics)
        console.print('Equal to pycocotools in every metric.')
    print_report(report, console)
    if args.out:
        for path in write_report(report, args.out, args.images):
            console.print(f'wrote {path}')


if __name__ == '__main__':
    main()
