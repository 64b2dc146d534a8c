# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares local attention with (dynamic) depth-wise convolution.

    python tools/analysis_tools/token_mixers.py [--channels 96]

Prints parameters, FLOPs, memory and latency of each mixer at each resolution,
and writes the figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import UserError, command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--channels', type=int, default=96, help='a multiple of 32')
    add('--sides', type=int, nargs='+', default=[14, 28, 56, 112])
    add('--rounds', type=int, default=15, help='timed passes (default 15)')
    add('--out-dir', default='work_dirs/token_mixers')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    import torch

    from mmext.analysis import token_mixers

    if args.channels < 1 or args.channels % token_mixers.GROUP:
        raise UserError(
            f'--channels {args.channels} is not a multiple of '
            f'{token_mixers.GROUP}, the channels of a head or group.',
            'Use 96, 192, ...',
        )
    if min(args.sides) < 1 or args.rounds < 1:
        raise UserError('--sides and --rounds must be 1 or more.')
    torch.set_num_threads(1)
    costs = token_mixers.measure(args.channels, args.sides, args.rounds)
    print(token_mixers.cost_table(costs, args.channels))
    path = Path(args.out_dir) / 'token_mixers.png'
    print(f'wrote {token_mixers.draw(costs, path)}')


if __name__ == '__main__':
    main()
