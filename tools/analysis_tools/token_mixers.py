# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares attention with depth-wise convolution.

    python tools/analysis_tools/token_mixers.py [--channels 96]

Prints parameters, FLOPs, memory and latency of each mixer at each resolution,
and draws them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--channels', type=int, default=96, help='a multiple of 32')
    add(
        '--sides',
        type=int,
        nargs='+',
        default=[14, 28, 56, 112],
        help='of the square maps, in pixels (default: 14 28 56 112)',
    )
    add('--rounds', type=int, default=15, help='timed passes (default 15)')
    add(
        '--out-dir', default='work_dirs/token_mixers', help='folder of results'
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    import torch

    from mmext.analysis.token_mixers import cost_table, draw, measure

    torch.set_num_threads(1)
    costs = measure(args.channels, args.sides, args.rounds)
    print(cost_table(costs, args.channels).markdown())
    path = Path(args.out_dir) / 'token_mixers.png'
    print(f'wrote {draw(costs, path)}')


if __name__ == '__main__':
    main()
