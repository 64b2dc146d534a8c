# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in images by an exported file or a checkpoint.

    python tools/predict.py detector.onnx IMAGE_FOLDER_OR_VIDEO ... --out found
    python tools/predict.py epoch_12.pth IMAGES --config CONFIG

OUT/detections.json is a COCO data set with scores, which CVAT imports.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options, add_trust
from mmext.utils.text import count


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('model', help='a file of mmext export, or a checkpoint')
    add('images', nargs='+', help='images, videos, folders, or patterns')
    add('--config', help='the config of a checkpoint')
    add('--out', default='detections', help='folder of the results')
    add(
        '--format',
        nargs='+',
        choices=['coco', 'csv', 'yolo'],
        default=['coco'],
        help='files to write; default: coco',
    )
    add('--pictures', action='store_true', help='write pictures with boxes')
    add(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score of a detection; default: 0.3',
    )
    add('--batch-size', type=int, default=1, help='images at a time')
    add(
        '--slices',
        nargs=2,
        type=int,
        metavar=('WIDTH', 'HEIGHT'),
        help='detect in slices of this size too: small objects in large '
        'images',
    )
    add(
        '--overlap',
        type=float,
        default=0.2,
        help='share that neighbouring slices have in common; default: 0.2',
    )
    add(
        '--tta',
        action='store_true',
        help='detect in mirror images too (test-time augmentation)',
    )
    add(
        '--fast',
        choices=['exact', 'bf16'],
        help='measure how a checkpoint runs fastest with the same results, '
        'or with convolutions in bfloat16',
    )
    add('--device', default='cpu', help='device of a checkpoint')
    add_cfg_options(parser)
    add_trust(parser)
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.export.prediction.predict import predict_files

    found = predict_files(
        args.model,
        args.images,
        config=args.config,
        out=args.out,
        formats=args.format,
        pictures=args.pictures,
        score_thr=args.score_thr,
        slices=args.slices,
        overlap=args.overlap,
        mirror=args.tta,
        fast=args.fast,
        batch_size=args.batch_size,
        device=args.device,
        cfg_options=args.cfg_options,
        trust_checkpoint=args.trust_checkpoint,
    )
    print(
        f'{count(sum(len(f.detections) for f in found), "detection")} in '
        f'{count(len(found), "image")}: {args.out}'
    )


if __name__ == '__main__':
    main()
