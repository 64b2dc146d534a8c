# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains a detector: mmdet's options, on GPUs or on none.

python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume [FILE]]
tools/dist_train.sh CONFIG PROCESSES [any option of this tool]
"""

from __future__ import annotations

import argparse
import os

try:
    from mmext.errors import command
except ImportError as missing:
    raise SystemExit(f'error: {missing}') from None


def parse_args() -> argparse.Namespace:
    from mmext.engine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('--work-dir', help='folder of logs and checkpoints')
    add(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on the CPU',
    )
    add(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the total batch',
    )
    add(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint; without a name, from the newest '
        'whole one in the work dir',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config: a.b=1 c=1,2 d="[(a,b)]" (+a.b=1: a new key)',
    )
    add(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes',
    )
    add(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle whatever a checkpoint holds: it can run any code',
    )
    add(
        '--skip-data-checks',
        action='store_true',
        help='do not look into annotations and images before the run',
    )
    add('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@command
def main() -> None:
    from mmext.engine.launch import train

    train(parse_args())


if __name__ == '__main__':
    main()
