# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the stiffness of trained models.

    python tools/analysis_tools/stiffness.py CONFIG CHECKPOINT \
        [CONFIG CHECKPOINT ...] --images FOLDER --out-dir DIR

Writes tables (CSV), NSI along the blocks, delta and the stiff ratio over the
thresholds, and the step sizes of attention; several models share each figure.
With --correlate, also the rank correlation of TNS with AP, top-1 or mIoU over
the models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from mmext.errors import UserError, command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add(
        'models',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help="pairs; the checkpoint 'init' means the weights before training",
    )
    add('--images', nargs='+', required=True, help='image files or folders')
    add('--limit', type=int, default=50, help='images at most (default 50)')
    add('--names', nargs='+', help='names of the models in figures')
    add('--out-dir', default='work_dirs/stiffness', help='folder of results')
    add('--device', default='cpu', help='cpu (default), cuda:0, ...')
    add(
        '--correlate',
        action='store_true',
        help='correlate TNS with AP, top-1 or mIoU over the models',
    )
    add(
        '--ap',
        nargs='+',
        type=float,
        metavar='SCORE',
        help='correlate with this AP of each model, instead of the last AP, '
        "top-1 or mIoU in the checkpoint's work folder",
    )
    args = parser.parse_args(argv)
    configs, checkpoints = args.models[::2], args.models[1::2]
    for what, given in (
        ('checkpoints', checkpoints),
        ('--names', args.names or configs),
        ('--ap', args.ap or configs),
    ):
        if len(given) != len(configs):
            raise UserError(
                f'{len(configs)} configs and {len(given)} {what}.',
                'Give one per config: CONFIG CHECKPOINT CONFIG CHECKPOINT ...',
            )
    return args


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.analysis.stiffness_report import (
        correlate,
        measure_models,
        recorded_scores,
        write_report,
    )

    configs, checkpoints = args.models[::2], args.models[1::2]
    metric, scores = 'AP', args.ap
    if args.correlate and not scores:
        metric, scores = recorded_scores(checkpoints)
    found = measure_models(
        list(zip(configs, checkpoints, strict=True)),
        args.images,
        names=args.names,
        limit=args.limit,
        device=args.device,
        log=partial(print, flush=True),
    )
    if scores:
        tau, rho = correlate([model.tns for model in found.values()], scores)
        print(f"TNS and {metric}: Kendall's tau {tau}, Spearman's rho {rho}")
    for path in write_report(found, args.out_dir, scores, metric):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
