# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two moons: what the boundary of a star network resembles.

    python tools/analysis_tools/decision_boundary.py [--seeds 20]

Trains a star network, a sum network and two support vector machines, prints
their agreement over seeds and writes the picture of the first seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import UserError, command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--seeds', type=int, default=20, help='networks trained (default 20)')
    add(
        '--new-data',
        action='store_true',
        help='draw new points for each seed (default: the paper’s points)',
    )
    add('--out-dir', default='work_dirs/stars', help='folder of the picture')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    if args.seeds < 1:
        raise UserError(f'--seeds {args.seeds}: at least 1 is needed.')
    from mmext.analysis import decision_boundary, stars

    runs = [
        decision_boundary.experiment(seed, seed if args.new_data else 0)
        for seed in range(args.seeds)
    ]
    print(decision_boundary.agreement_table(runs))
    path = Path(args.out_dir) / 'decision_boundary.png'
    print(f'wrote {decision_boundary.draw(runs[0], path)}')
    print('\nImplicit dimensions of l star operations on d inputs:')
    print('| d | l | monomials | rank measured | sum, rank measured |')
    print('|---|---|---|---|---|')
    for d, layers in ((2, 1), (8, 1), (24, 1), (2, 2), (4, 2), (2, 3)):
        print(
            f'| {d} | {layers} | {stars.implicit_dimensions(d, layers)} '
            f'| {stars.measured_dimensions(d, layers)} '
            f'| {stars.measured_dimensions(d, layers, "sum")} |'
        )


if __name__ == '__main__':
    main()
