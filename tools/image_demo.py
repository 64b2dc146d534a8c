# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects objects in images, with pictures and COCO files.

python tools/image_demo.py CONFIG CHECKPOINT IMAGE_OR_FOLDER ... --out shown

OUT/pictures has the images with boxes and masks, OUT/bbox.json (segm.json)
the detections as COCO results, OUT/images.json the meaning of their ids.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options, add_sha256, add_trust


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
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
        help='lowest score of a detection that is drawn; the JSON has all',
    )
    add('--device', help='default: the first GPU, or the CPU')
    add('--ann', metavar='FILE', help='COCO file whose ids the results use')
    add_sha256(parser)
    add_cfg_options(parser)
    add_trust(parser)
    args = parser.parse_args(argv)
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr {args.score_thr} is not between 0 and 1')
    return args


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.engine.predict import predict

    found = predict(
        args.config,
        args.checkpoint,
        args.images,
        out=args.out,
        score_thr=args.score_thr,
        device=args.device,
        ann_file=args.ann,
        sha256=args.sha256,
        cfg_options=args.cfg_options,
        trust_checkpoint=args.trust_checkpoint,
    )
    drawn = sum(r['score'] >= args.score_thr for r in found['bbox'])
    print(
        f'{drawn} detections with a score of at least {args.score_thr:g} are '
        f'drawn in {args.out}/pictures; all {len(found["bbox"])} are in '
        + ' and '.join(f'{args.out}/{kind}.json' for kind in found)
    )


if __name__ == '__main__':
    main()
