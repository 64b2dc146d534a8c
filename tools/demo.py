# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains Faster R-CNN with a plain ResNet and with StepNet, and compares.

python tools/demo.py [--data DIR]

Some minutes for both on two CPU cores, less on a GPU, which is used where
there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import warnings

# Threads that wait without spinning: where something else needs a core too,
# spinning makes an iteration take ten times as long. Read when torch loads.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add(
        '--data',
        metavar='DIR',
        help='folder in COCO format: annotations/instances_{train,val}.json '
        'and the images in train/ and val/; default: drawn shapes',
    )
    add('--work-dir', default='work_dirs/demo', help='folder of the results')
    add('--epochs', type=int, help='passes over the training images')
    add('--images', type=int, help='training images to use')
    add('--seed', type=int, default=0)
    add(
        '--restart',
        action='store_true',
        help='train anew where results or an interrupted run are there',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print('Loading MMDetection...', flush=True)
    warnings.simplefilter('ignore')
    # What the packages miss for features that nobody asked for here.
    with contextlib.redirect_stdout(io.StringIO()):
        from mmext.demo.run import run_demo
        from mmext.errors import command
    command(run_demo)(args)


if __name__ == '__main__':
    main()
