# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a detector as an ONNX file and compares both.

    python tools/export.py CONFIG CHECKPOINT [--out detector.onnx]

The file takes images and returns boxes, scores, labels and masks. It is
written only if it detects what the model does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options, add_sha256, add_trust
from mmext.utils.progress import progress_bar


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file or URL')
    add('--out', metavar='FILE', help="default: the config's name")
    add(
        '--format',
        choices=['onnx', 'torch', 'openvino'],
        default='onnx',
        help='onnx (default), a program of torch.export, or openvino',
    )
    add(
        '--precision',
        nargs='+',
        default=[],
        choices=['fp16', 'int8', 'bf16'],
        help='write smaller files too: fp16, int8 (onnx, openvino), bf16 '
        '(torch)',
    )
    add(
        '--size',
        nargs=2,
        type=int,
        metavar=('WIDTH', 'HEIGHT'),
        help='take images of this size only; default: any size',
    )
    add('--opset', type=int, default=18, help="version of ONNX's operators")
    add(
        '--images',
        nargs='+',
        metavar='PATH',
        help='images or folders to compare file and model on; default: those '
        'that the config tests on, with AP',
    )
    add(
        '--check',
        type=int,
        default=50,
        metavar='N',
        help='number of images to compare on (50)',
    )
    add(
        '--force',
        action='store_true',
        help='write the file even if it disagrees with the model',
    )
    add_sha256(parser)
    add_cfg_options(parser)
    add_trust(parser)
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from rich.console import Console

    from mmext.export.write import export_detector

    with progress_bar() as progress:
        done = export_detector(
            args.config,
            args.checkpoint,
            args.out,
            file_format=args.format,
            precisions=args.precision,
            size=args.size,
            opset=args.opset,
            images=args.images,
            check=args.check,
            force=args.force,
            sha256=args.sha256,
            cfg_options=args.cfg_options,
            trust_checkpoint=args.trust_checkpoint,
            progress=progress,
        )
    print('\n'.join(done.parity.lines()))
    done.table().print(Console())


if __name__ == '__main__':
    main()
