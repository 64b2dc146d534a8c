# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares decision boundaries on two moons.

    python tools/analysis_tools/decision_boundary.py [--seeds 20]

Trains a star network, a sum network and two support vector machines, prints
their agreement over seeds and draws the boundaries of the first seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--seeds', type=int, default=20, help='networks trained (default 20)')
    add(
        '--new-data',
        action='store_true',
        help='draw new points for each seed (default: the paper’s points)',
    )
    add('--out-dir', default='work_dirs/stars', help='folder of the picture')
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.seeds < 1:
        raise UserError(f'--seeds {args.seeds}: at least 1 is needed.')
    from mmext.analysis.decision_boundary import (
        agreement_table,
        draw,
        experiment,
    )
    from mmext.analysis.stars import dimension_table

    runs = [
        experiment(seed, seed if args.new_data else 0)
        for seed in range(args.seeds)
    ]
    print(agreement_table(runs).markdown())
    path = Path(args.out_dir) / 'decision_boundary.png'
    print(f'wrote {draw(runs[0], path)}\n')
    print(dimension_table().markdown())


if __name__ == '__main__':
    main()
