# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests a detector's checkpoint: mmdet's options, on GPUs or on none.

    python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--tta]
    tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [any option of this tool]

COCO result files go to WORK_DIR/predictions.
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
    add('checkpoint', help='checkpoint file, URL or torchvision://name')
    add('--work-dir', help='folder of logs and predictions')
    add('--out', metavar='FILE.pkl', help='also dump the raw results')
    add('--show', action='store_true', help='show the detections')
    add('--show-dir', help='draw the detections into WORK_DIR/time/SHOW_DIR')
    add('--wait-time', type=float, default=2, help='seconds an image shows')
    add('--tta', action='store_true', help='test-time augmentation')
    add('--sha256', help='what the checkpoint must have, 8 digits or more')
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
    from mmext.engine.launch import test

    test(parse_args())


if __name__ == '__main__':
    main()
