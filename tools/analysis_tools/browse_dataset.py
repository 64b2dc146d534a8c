# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Images of a config's data set with their boxes and masks, as files.

What is drawn is what training sees, after augmentation; --original draws the
image as it is stored.

    python tools/analysis_tools/browse_dataset.py CONFIG --out browse
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import UserError, command
from mmext.utils.config import load_config


@command
def main(argv: list[str] | None = None) -> None:
    import numpy as np
    from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config')
    parser.add_argument(
        '--split', choices=('train', 'val', 'test'), default='train'
    )
    parser.add_argument('--count', type=int, default=20)
    parser.add_argument('--original', action='store_true')
    parser.add_argument('--out', default='browse', help='folder')
    args = parser.parse_args(argv)
    cfg = load_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise UserError(
            f'{args.config} has no {args.split}_dataloader.',
            'Name another with --split.',
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
        if hasattr(boxes, 'tensor'):  # drawn as plain x1, y1, x2, y2
            instances.bboxes = boxes.tensor
        visualizer.add_datasample(
            'image',
            np.ascontiguousarray(image),
            sample,
            draw_pred=False,
            out_file=str(path),
        )
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
