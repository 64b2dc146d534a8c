# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains two small detectors and compares them.

python tools/demo.py [--data DIR]

Both together take about ten minutes or less. A GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import warnings
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.huge_pages import use_huge_pages


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add(
        '--data',
        metavar='DIR',
        help='folder in COCO format: annotations/instances_{train,val}.json '
        'and the images in train/ and val/; default: generated shapes',
    )
    add('--work-dir', default='work_dirs/demo', help='folder of the results')
    add(
        '--minutes',
        type=float,
        default=10.0,
        help='about how long both trainings may take (default: 10)',
    )
    add(
        '--epochs',
        type=int,
        help='passes over the training images, whatever time they take',
    )
    add('--images', type=int, help='training images to use')
    add(
        '--seed',
        type=int,
        default=0,
        help='of the first training (default: 0)',
    )
    add(
        '--restart',
        action='store_true',
        help='train from the beginning even if there are results',
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    use_huge_pages()
    # Idle threads of OpenMP must not spin: if another process needs a core,
    # spinning makes an iteration ten times slower. torch reads it on import.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    print('Loading MMDetection...', flush=True)
    warnings.simplefilter('ignore')
    # Some packages print that optional features are missing.
    with contextlib.redirect_stdout(io.StringIO()):
        from mmext.demo.run import run_demo
    run_demo(
        args.work_dir,
        data=args.data,
        minutes=args.minutes,
        epochs=args.epochs,
        images=args.images,
        seed=args.seed,
        restart=args.restart,
    )


if __name__ == '__main__':
    main()
