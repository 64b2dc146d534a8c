# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a checkpoint's weights as a file for others, named by its hash.

python tools/model_converters/publish_model.py WORK_DIR/epoch_12.pth \
    published/faster-rcnn_stepnet-r50

Left out: optimiser, schedules, log, config, paths, and the raw weights where
the run kept an average (EMA). The result loads wherever a checkpoint does.
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.utils.options import add_sha256, add_trust


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('checkpoint', help='of a training; it stays as it is')
    add('target', help='folder and stem of the file: published/my-detector')
    add(
        '--format',
        choices=['safetensors', 'pth'],
        default='safetensors',
        help='safetensors (default) cannot hold code; pth is a pickle',
    )
    add_sha256(parser)
    add_trust(parser)
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    import os

    from mmext.checkpoints.publish import publish
    from mmext.checkpoints.read import require_sha256
    from mmext.checkpoints.untrusted import TRUST

    if args.trust_checkpoint:
        os.environ[TRUST] = '1'
    if args.sha256:
        require_sha256(args.checkpoint, args.sha256)
    done = publish(args.checkpoint, args.target, args.format)
    kind = 'averaged (EMA)' if done.averaged else 'trained'
    print(f'{done.path}: {done.tensors} {kind} tensors')
    print(f'left out: {", ".join(done.dropped) or "nothing"}')
    print(f'SHA-256: {done.digest}')


if __name__ == '__main__':
    main()
