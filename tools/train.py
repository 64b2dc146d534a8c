# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains a detector: mmdet's options, on GPUs or on none.

python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume [FILE]]
tools/dist_train.sh CONFIG PROCESSES [any option of this tool]
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.utils.options import add_run_options, parse_run


def parse_args() -> argparse.Namespace:
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
    add_run_options(parser)
    return parse_run(parser)


@command
def main() -> None:
    from mmext.engine.launch import train

    train(parse_args())


if __name__ == '__main__':
    main()
