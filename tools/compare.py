# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares detectors: a baseline, then candidates.

A run is a work folder or a COCO result file (then give --ann). The comparison
has intervals if tools/test.py wrote predictions into the work folders.
Otherwise it is a table of the logged metrics.

    python tools/compare.py work_dirs/resnet work_dirs/stepnet
    python tools/compare.py --baseline runs/r50_s* --candidate runs/step_s* \\
        --out reports/stepnet
    python tools/compare.py a.bbox.json b.bbox.json --ann val.json
    python tools/compare.py work_dirs/resnet predictions.json \\
        --format ultralytics --categories 0:data.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, command, did_you_mean, printable
from mmext.utils.progress import progress_bar


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
    add('--classes', nargs='+', help='classes (default: those of every run)')
    add(
        '--format',
        nargs='+',
        default=[],
        metavar='[FILE=]NAME',
        help='who wrote the result files that are not from tools/test.py: '
        'ultralytics, torchvision, detectron2, rf-detr (default: coco)',
    )
    add(
        '--categories',
        nargs='+',
        default=[],
        metavar='[FILE=]WHAT',
        help='what their category numbers are: ids, 0 or 1 (they count from '
        '0 or 1), or 0:data.yaml with the names in their order',
    )
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
    add(
        '--groups',
        help='what tells images that belong together, such as frames of a '
        'video: a field of the images (video_id), a pattern of file names '
        "('^(.+)_') or a CSV file of image,group",
    )
    add(
        '--margin',
        type=float,
        help='a loss in AP points that would not matter, such as 0.5',
    )
    add('--threads', type=int, default=2, help='default: 2')
    add('--quick', action='store_true', help='no AP by size')
    add('--logs', action='store_true', help='logged metrics, no intervals')
    add('--no-cost', action='store_true', help='no parameters and FLOPs')
    add(
        '--latency',
        action='store_true',
        help='measure speed, batch 1 and 16; executes the configs',
    )
    add('--verify', choices=('pycocotools',), help='check every metric')
    add('--out', help='folder for report.md, report.html, CSV and LaTeX')
    add('--images', type=Path, help='folder of test images for report.html')
    args = parser.parse_args(argv)
    if args.runs and (args.baseline or args.candidate):
        parser.error('give runs, or --baseline and --candidate, not both')
    if not args.runs and not (args.baseline and args.candidate):
        parser.error('give a baseline and at least one candidate')
    if args.images and not args.images.is_dir():
        beside = args.images.absolute().parent
        names = [p.name for p in beside.iterdir()] if beside.is_dir() else []
        raise UserError(
            f'--images {args.images}: there is no such folder',
            did_you_mean(args.images.name, names)
            or 'Give the folder that file names are relative to.',
        )
    if args.images and not args.out:
        parser.error('--images is for report.html: give --out FOLDER as well')
    return args


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from rich.console import Console

    from mmext.evaluation.coco.formats import formats_of
    from mmext.evaluation.compare import compare
    from mmext.evaluation.side_checks import check_logged
    from mmext.evaluation.sides import read_source
    from mmext.evaluation.tested import cost_of
    from mmext.utils.text import some

    groups = [[r] for r in args.runs] or [args.baseline, *args.candidate]
    sources = [source for group in groups for source in group]
    formats = formats_of(sources, args.format, args.categories)
    sides = [
        [read_source(s, args.which, formats[s]) for s in group]
        for group in groups
    ]
    runs = [run for side in sides for run in side]
    untested = [run.path for run in runs if not run.predictions]
    if args.logs or untested:
        from mmext.evaluation.report.tables import logged_table

        costs = [None if args.no_cost else cost_of(r.model) for r in runs]
        logged_table(runs, args.iou_type, costs).print(Console())
        for warning in check_logged(runs):
            print(printable(f'Warning: {warning}'))
        print(
            'Logged metrics only: no intervals, and no statement about the '
            'checkpoints or the methods. tools/test.py writes the predictions '
            'that these need.'
        )
        if untested:
            print(f'No predictions: {some(untested)}')
        return
    with progress_bar() as progress:
        report = compare(
            baseline=sides[0],
            candidates=sides[1:],
            ann=args.ann,
            classes=args.classes,
            iou_type=args.iou_type,
            resamples=args.resamples,
            level=args.level,
            seed=args.seed,
            groups=args.groups,
            margin=None if args.margin is None else args.margin / 100,
            quick=args.quick,
            threads=args.threads,
            cost=not args.no_cost,
            latency=args.latency,
            progress=progress,
        )
    if args.verify:
        report.verify()
        print('Equal to pycocotools in every metric.')
    report.print()
    if args.out:
        page, text, *tables = report.write(args.out, args.images)
        print(
            printable(
                f'wrote {page}, {text} and {len(tables)} files of tables'
            )
        )
        if problem := report.image_folder(args.images).problem:
            line = printable(f'Warning: {problem}')
            Console().print(line, style='yellow', markup=False)


if __name__ == '__main__':
    main()
