# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Ranks attention modules and keeps the best.

    python tools/analysis_tools/attention_ticket.py CONFIG CHECKPOINT \
        --images FOLDER --out CONFIG_OUT [--keep K]

Prints the NSI of each block and the effect of fixing its step to its mean,
and writes a config in which only the K best blocks have attention.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config of the trained model')
    add('checkpoint', help='its weights')
    add('--images', nargs='+', required=True, help='image files or folders')
    add('--limit', type=int, default=20, help='images at most (default 20)')
    add('--out', required=True, metavar='FILE.py', help='config to write')
    add(
        '--keep',
        type=int,
        metavar='K',
        help='blocks to keep (default: those with 90 %% of the effect)',
    )
    add('--device', default='cpu', help='cpu (default), cuda:0, ...')
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.analysis.attention_ticket import write_ticket

    ranking = write_ticket(
        args.config,
        args.checkpoint,
        args.images,
        args.out,
        keep=args.keep,
        limit=args.limit,
        device=args.device,
    )
    print(ranking.text())


if __name__ == '__main__':
    main()
