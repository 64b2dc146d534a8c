# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in images: pictures with boxes and masks, and a COCO result file.

python tools/image_demo.py CONFIG CHECKPOINT IMAGE_OR_FOLDER ... --out shown

OUT/pictures has the images with what was found, OUT/bbox.json (segm.json) the
detections as COCO results, OUT/images.json the meaning of their ids.
"""

from __future__ import annotations

import argparse
import os

from mmext.errors import command
from mmext.utils.options import add_cfg_options, add_sha256, add_trust


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file or URL')
    add('images', nargs='+', help='image files, or folders of images')
    add('--out', default='detections', help='folder of the results')
    add(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score of a detection that is drawn; the JSON has all',
    )
    add('--device', help='default: the first GPU, the CPU where there is none')
    add('--ann', metavar='FILE', help='COCO file whose ids the results use')
    add_sha256(parser)
    add_cfg_options(parser)
    add_trust(parser)
    args = parser.parse_args()
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr {args.score_thr} is not between 0 and 1')
    return args


@command
def main() -> None:
    args = parse_args()
    import torch

    from mmext.checkpoints.read import require_sha256
    from mmext.checkpoints.untrusted import TRUST
    from mmext.engine.predict import detect, find_images, load_detector
    from mmext.utils.config import load_config

    if args.trust_checkpoint:
        os.environ[TRUST] = '1'
    images = find_images(args.images)
    cfg = load_config(args.config, args.cfg_options)
    if args.sha256:
        require_sha256(args.checkpoint, args.sha256)
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    model = load_detector(cfg, args.checkpoint, device)
    print(f'{len(images)} images on {device}', flush=True)
    found = detect(model, images, args.out, args.score_thr, args.ann)
    drawn = sum(r['score'] >= args.score_thr for r in found['bbox'])
    print(
        f'{drawn} detections of score {args.score_thr:g} or more drawn in '
        f'{args.out}/pictures; all {len(found["bbox"])} in '
        + ' and '.join(f'{args.out}/{kind}.json' for kind in found)
    )


if __name__ == '__main__':
    main()
