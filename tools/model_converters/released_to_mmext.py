# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes official weights as a state dict of mmext.

python tools/model_converters/released_to_mmext.py StarNet \
    starnet_s1.pth.tar starnet-s1.pth --cfg-options arch=s1

Not needed for training: init_cfg=dict(type='Pretrained', checkpoint=...)
reads official files as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('backbone', choices=['DWNet', 'GMLP', 'StarNet'], help='its class')
    add('src', help='official file (.pth, .pth.tar, .safetensors) or URL')
    add('dst', help='.pth file to write')
    add_cfg_options(
        parser, 'arch=s1 dynamic=homogeneous', "the backbone's arguments"
    )
    add(
        '--allow-missing',
        nargs='+',
        default=[],
        metavar='PREFIX',
        help='accept that tensors whose names begin like this are missing',
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from mmext.checkpoints.released import convert_released_weights
    from mmext.utils.config import parse_options

    convert_released_weights(
        {'type': args.backbone, **parse_options(args.cfg_options or ())},
        args.src,
        args.dst,
        allow_missing=args.allow_missing,
    )
    print(f'written: {args.dst}')


if __name__ == '__main__':
    main()
