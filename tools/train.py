# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains a detector.

python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume [FILE]]
tools/dist_train.sh CONFIG PROCESSES [any option of this tool]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.huge_pages import use_huge_pages
from mmext.utils.options import add_run_options, parse_run


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
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
        help='scale the learning rate to the total batch size',
    )
    add(
        '--batch-size',
        type=_number_or_word,
        metavar='N',
        help='images in the batch of a process, or auto: as many as fit a '
        'GPU, or as make a CPU faster; scales the learning rate',
    )
    add(
        '--workers',
        type=_number_or_word,
        metavar='N',
        help='processes that load the training images, or auto: as many as '
        'feed the model',
    )
    add(
        '--resume',
        metavar='FILE',
        nargs='?',
        const=True,
        default=False,
        help='continue from this checkpoint; without a name, from the newest '
        'complete one in the work dir',
    )
    add_run_options(parser)
    return parse_run(parser, argv)


def _number_or_word(text: str) -> int | str:
    return int(text) if text.isdigit() else text


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    use_huge_pages()
    from mmext.engine.launch import train

    train(
        args.config,
        data=args.data,
        classes=args.classes,
        work_dir=args.work_dir,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        batch_size=args.batch_size,
        workers=args.workers,
        resume=args.resume,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
        trust_checkpoint=args.trust_checkpoint,
        check_data=not args.skip_data_checks,
    )


if __name__ == '__main__':
    main()
