# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Plans a comparison: the seeds that show a gain.

Writes plan.yaml, to be committed before training, and a page beside it.

    python tools/plan.py --baseline resnet.py --candidate stepnet.py --gain 0.5
    python tools/plan.py --baseline resnet.py --candidate stepnet.py \\
        --gain 0.5 --pilot work_dirs/resnet_s* --looks 3,5,8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command, printable
from mmext.utils.options import add_cfg_options
from mmext.utils.progress import progress_bar


def looks(text: str) -> list[int]:
    return [int(part) for part in text.split(',')]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--baseline', required=True, metavar='CONFIG', help='its config')
    add(
        '--candidate',
        required=True,
        nargs='+',
        metavar='CONFIG',
        help='one or more configs',
    )
    add(
        '--gain',
        required=True,
        type=float,
        help='the smallest gain that matters, in points: 0.5',
    )
    add('--out', default='plan.yaml', help='default: plan.yaml')
    add('--claim', help='a sentence (default: the candidates are better)')
    add('--names', nargs='+', help='of the sides (default: their backbones)')
    add(
        '--metric',
        choices=('bbox', 'segm', 'mIoU', 'top1'),
        help='AP of boxes or masks, mIoU or top-1 (default: what the configs '
        'test first)',
    )
    add(
        '--scope',
        choices=('images', 'data-set'),
        default='images',
        help='whether the claim is about images like the test images '
        '(default) or about these alone',
    )
    add(
        '--margin',
        type=float,
        help='a loss in points that would not matter, such as 0.5',
    )
    add('--ann', help='annotation file that the configs must test on')
    add('--data', metavar='DIR', help='as in tools/train.py')
    add(
        '--groups',
        help='which test images belong together, as in tools/compare.py',
    )
    noise = parser.add_argument_group('noise')
    noise.add_argument(
        '--pilot',
        nargs='+',
        default=[],
        metavar='RUN',
        help='work folders with predictions, or records: three seeds of the '
        'baseline are a start',
    )
    noise.add_argument(
        '--seed-sd',
        type=float,
        metavar='POINTS',
        help='standard deviation between seeds (default: of the pilot, or '
        '0.2)',
    )
    noise.add_argument(
        '--image-se',
        type=float,
        metavar='POINTS',
        help='standard error over images of the difference (default: of the '
        'pilot, or 10 / sqrt(images), for top-1 30 / sqrt(images))',
    )
    size = parser.add_argument_group('seeds')
    several = size.add_mutually_exclusive_group()
    several.add_argument(
        '--seeds',
        type=int,
        help='trainings a side (default: the fewest that show the gain)',
    )
    several.add_argument(
        '--looks',
        type=looks,
        metavar='3,5,8',
        help='seeds a side at which the report may decide',
    )
    size.add_argument('--max-seeds', type=int, default=8, help='default: 8')
    size.add_argument('--first-seed', type=int, default=1, help='default: 1')
    size.add_argument(
        '--power',
        type=float,
        default=0.8,
        help='share of plans that show the gain (default: 0.8)',
    )
    size.add_argument(
        '--alpha',
        type=float,
        default=0.05,
        help='share of plans that call equal methods different (default: '
        '0.05)',
    )
    add_cfg_options(parser, changed='all configs')
    add(
        '--allow-differences',
        action='store_true',
        help='plan configs that differ in more than the model',
    )
    add('--no-timing', action='store_true', help='do not measure steps')
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.experiments.design.make import make_plan
    from mmext.experiments.design.power_table import require_new

    def share(points: float | None) -> float | None:
        return None if points is None else points / 100

    require_new(args.out)
    with progress_bar() as progress:
        design = make_plan(
            args.baseline,
            args.candidate,
            args.gain / 100,
            task=args.metric,
            scope=args.scope.replace('-', ' '),
            seeds=args.seeds,
            looks=args.looks,
            most=args.max_seeds,
            power=args.power,
            alpha=args.alpha,
            margin=share(args.margin),
            seed_sd=share(args.seed_sd),
            image_se=share(args.image_se),
            pilot=args.pilot,
            ann=args.ann,
            folder=args.data,
            groups=args.groups,
            names=args.names,
            claim=args.claim,
            options=args.cfg_options or (),
            allow_differences=args.allow_differences,
            timing=not args.no_timing,
            first_seed=args.first_seed,
            progress=progress,
        )
    plan, page = design.write(args.out)
    design.print()
    print(printable(f'wrote {plan} and {page}'))
    print(printable(f'next: git add {plan} && git commit, then'))
    print(printable(f'      mmext run {plan}'))


if __name__ == '__main__':
    main()
