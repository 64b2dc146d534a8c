# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the time from a command to the end of its first training step.

    python benchmarks/first_step.py [--rounds 5]

Faster R-CNN R50 on drawn images: MMEngine's runner, as mmdet's tools/train.py
starts it, against ``mmext.train``, with all its checks. Each training is a new
process; they take turns in each round. ``again`` is a start with data that
mmext has checked before. The second data set has as many images as COCO's
validation set, with 20 objects each. The table with the medians is written to
benchmarks/results/first_step.md. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from startup import ROOT, machine

OUT = ROOT / 'benchmarks' / 'results' / 'first_step.md'
CONFIG = """_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'])
classes = {classes}
data_root = {root!r}
def of(split):
    return dict(batch_size=1, num_workers=0, persistent_workers=False,
        dataset=dict(data_root=data_root, metainfo=dict(classes=classes),
            ann_file=f'{{split}}.json', data_prefix=dict(img=f'{{split}}/')))
train_dataloader, val_dataloader = of('train'), of('val')
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/val.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False),
    roi_head=dict(bbox_head=dict(num_classes=len(classes))),
    train_cfg=dict(rcnn=dict(sampler=dict(num=32))))
"""
#: Ends the process after the first step. Arguments: config, work dir, peer.
WORKER = """
import os, sys
import mmext
from mmengine.hooks import Hook

class Stop(Hook):
    def after_train_iter(self, *args, **kwargs):
        os._exit(0)

config, work_dir, peer = sys.argv[1:]
if peer == 'mmdet':
    from mmengine.config import Config
    from mmengine.runner import Runner
    cfg = Config.fromfile(config)
    cfg.work_dir = work_dir
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Stop())
    runner.train()
else:
    mmext.train(config, work_dir=work_dir, hooks=[Stop()])
"""


def make_data(folder: Path, images: int, objects: int) -> None:
    """Writes images that share their pixels, with boxes at random places."""
    import numpy as np

    from mmext.utils.images import write_image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 320, 3), np.uint8)
    names = [f'class{i}' for i in range(10)]
    for split, count in (('train', images), ('val', min(images, 100))):
        (folder / split).mkdir(parents=True)
        write_image(folder / split / '0.jpg', pixels)
        for i in range(1, count):
            os.link(folder / split / '0.jpg', folder / split / f'{i}.jpg')
        boxes = rng.uniform(10, 90, (count * objects, 4)).round(1).tolist()
        content = {
            'images': [
                {
                    'id': i,
                    'file_name': f'{i}.jpg',
                    'height': 200,
                    'width': 320,
                }
                for i in range(count)
            ],
            'categories': [
                {'id': i + 1, 'name': name} for i, name in enumerate(names)
            ],
            'annotations': [
                {
                    'id': i + 1,
                    'image_id': i // objects,
                    'category_id': i % 10 + 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
                for i, box in enumerate(boxes)
            ],
        }
        (folder / f'{split}.json').write_text(json.dumps(content))
    text = CONFIG.format(classes=names, root=str(folder))
    (folder / 'config.py').write_text(text)


def start(folder: Path, peer: str, cache: Path) -> float:
    """Returns the seconds until the first step has ended."""
    environment = os.environ | {'MMEXT_CACHE': str(cache)}
    with tempfile.TemporaryDirectory() as work_dir:
        arguments = [str(folder / 'config.py'), work_dir, peer]
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, '-c', WORKER, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
        seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr.decode()[-2000:])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sets = {'64 images': (64, 5), '5,000 images': (5000, 20)}
        for name, (images, objects) in sets.items():
            folder = Path(scratch, str(images))
            make_data(folder, images, objects)
            for i in range(args.rounds):
                cache = Path(scratch, f'cache-{images}-{i}')
                for peer in ('mmdet', 'mmext', 'mmext again'):
                    seconds = start(folder, peer, cache)
                    times.setdefault((name, peer), []).append(seconds)
    lines = [
        f'`python benchmarks/first_step.py`: medians of {args.rounds} rounds '
        'in turn, from the start of Python to the end of the first step. '
        f'{machine()}.',
        '',
        '| data | MMEngine | mmext | ratio | mmext, again | ratio |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for name in sets:
        stock, *ours = (
            times[name, peer] for peer in ('mmdet', 'mmext', 'mmext again')
        )
        cells = [f'{statistics.median(stock):.1f} s']
        for mine in ours:
            ratios = (a / b for a, b in zip(mine, stock, strict=True))
            cells.append(f'{statistics.median(mine):.1f} s')
            cells.append(f'{statistics.median(ratios):.2f}')
        lines.append(f'| {name} | {" | ".join(cells)} |')
    page = '\n'.join(lines) + '\n'
    print(page)
    OUT.write_text(page, 'utf-8')


if __name__ == '__main__':
    main()
