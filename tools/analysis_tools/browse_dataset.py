# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws images of a data set with boxes and masks.

The images are drawn as the model gets them, after augmentation; --original
draws them as they are stored.

    python tools/analysis_tools/browse_dataset.py CONFIG --out browse
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, command, printable


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config file')
    add(
        '--split',
        choices=('train', 'val', 'test'),
        default='train',
        help='which data (default: train)',
    )
    add('--count', type=int, default=20, help='pictures (default: 20)')
    add('--original', action='store_true', help='without augmentation')
    add('--out', default='browse', help='folder (default: browse)')
    args = parser.parse_args(argv)

    import numpy as np
    from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope

    from mmext.utils.config import load_config

    cfg = load_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise UserError(
            f'{args.config} has no {args.split}_dataloader.',
            'Choose another with --split.',
        )
    if args.original:
        kept = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs')
        inner = loader.dataset
        while 'pipeline' not in inner and 'dataset' in inner:  # a wrapper
            inner = inner.dataset
        inner.pipeline = [step for step in inner.pipeline if step.type in kept]
    dataset = DATASETS.build(loader.dataset)
    visualizer = VISUALIZERS.build(
        {'type': 'mmdet.DetLocalVisualizer', 'name': 'browse'}
    )
    visualizer.dataset_meta = dataset.metainfo
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for i in range(min(args.count, len(dataset))):
        item = dataset[i]
        image = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        sample = item['data_samples'].cpu()
        name = Path(sample.metainfo.get('img_path', f'{i}')).stem
        path = out / f'{i:05d}_{name}.jpg'
        instances = sample.gt_instances
        boxes = getattr(instances, 'bboxes', None)
        if hasattr(boxes, 'tensor'):  # the visualizer draws plain tensors
            instances.bboxes = boxes.tensor
        visualizer.add_datasample(
            'image',
            np.ascontiguousarray(image),
            sample,
            draw_pred=False,
            out_file=str(path),
        )
        print(printable(f'wrote {path}'))


if __name__ == '__main__':
    main()
