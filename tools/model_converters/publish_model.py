# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes the weights of a checkpoint for others.

python tools/model_converters/publish_model.py WORK_DIR/epoch_12.pth \
    published/faster-rcnn_stepnet-r50

The file does not have the optimiser, schedules, log, config and paths, nor
the raw weights if the run kept an average (EMA). It loads like any
checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command, printable
from mmext.utils.options import add_sha256, add_trust


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('checkpoint', help='of a training; it is not changed')
    add('target', help='folder and stem of the file: published/my-detector')
    add(
        '--format',
        choices=['safetensors', 'pth'],
        default='safetensors',
        help='safetensors (default) cannot hold code; pth is a pickle',
    )
    add_sha256(parser)
    add_trust(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from mmext.checkpoints.publish import publish

    done = publish(
        args.checkpoint,
        args.target,
        file_format=args.format,
        sha256=args.sha256,
        trust_checkpoint=args.trust_checkpoint,
    )
    kind = 'averaged (EMA)' if done.averaged else 'trained'
    print(f'{done.path}: {done.tensors} {kind} tensors')
    print(printable(f'left out: {", ".join(done.dropped) or "nothing"}'))
    print(f'SHA-256: {done.digest}')


if __name__ == '__main__':
    main()
