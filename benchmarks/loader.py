# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures how many images a second one worker of a data loader brings.

    python benchmarks/loader.py DATA [--rounds 9]

MMEngine's loader against ours, with one worker each, for pipelines of mmdet
and of our presets. DATA has photographs: ``train/`` and
``annotations/instances_train.json``. Larger pictures are
made of them for the decoding at a reduced size. While one loader is measured,
the workers of the others wait with full queues. The table with the medians is
written to benchmarks/results/loader.md. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import cv2
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from startup import ROOT, machine
from torch.utils.data import DataLoader

from mmext.datasets.coco import read_coco
from mmext.datasets.loading.reduced import use_reduced_decoding
from mmext.engine.runner import ReliableRunner
from mmext.evaluation.report.table import Table
from mmext.utils.files import write_json

OUT = ROOT / 'benchmarks' / 'results' / 'loader.md'
ANN = 'annotations/instances_train.json'
#: Name of a row -> the config whose training data it loads.
ROWS = {
    '1x, 1333x800': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '1x, masks': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'large-scale jitter, 1024': 'mmdet::common/lsj-100e_coco-detection.py',
    'RTMDet, 640': 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'own data, 480 to 800': 'custom/faster-rcnn_r50_fpn_12e_custom.py',
    'BCCD, 320x240': 'bccd/faster-rcnn_r50_fpn_12e_bccd.py',
}
#: The same for larger images, with the scale that they are resized to.
LARGE = {
    '2560x1920 to 1333x800': (1333, 800),
    '2560x1920 to 640x480': (640, 480),
    '2560x1920 to 320x240': (320, 240),
}
QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 90)
BATCHES = 25
SKIPPED = 5  # were loaded while another loader was measured


def load(config: str) -> Config:
    """Reads a config of mmdet (``mmdet::``) or of this project."""
    if '::' in config:
        return Config.fromstring(f'_base_ = {config!r}', '.py')
    return Config.fromfile(ROOT / 'configs' / config)


def training_data(config: str, data: Path) -> Config:
    """Returns a config that loads other images, with one worker."""
    cfg = load(config)
    cfg.train_dataloader.update(
        batch_size=2,
        num_workers=1,
        sampler={'type': 'InfiniteSampler', 'shuffle': True},
    )
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:  # of a wrapper
        dataset = dataset.dataset
    names = [c['name'] for c in read_coco(data / ANN)['categories']]
    dataset.update(
        data_root=f'{data}/',
        ann_file=ANN,
        data_prefix={'img': 'train/'},
        metainfo={'classes': names},
    )
    return cfg


def enlarge(data: Path, out: Path) -> None:
    """Writes the images with 16 times the pixels, and their boxes."""
    coco = read_coco(data / ANN)
    (out / 'train').mkdir()
    for record in coco['images']:
        image = cv2.imread(str(data / 'train' / record['file_name']))
        image = cv2.resize(image, None, fx=4, fy=4)
        cv2.imwrite(str(out / 'train' / record['file_name']), image, QUALITY)
        record['height'], record['width'] = image.shape[:2]
    for ann in coco['annotations']:
        ann['bbox'] = [4 * value for value in ann['bbox']]
        ann['area'] *= 16
        ann['segmentation'] = []
    (out / ANN).parent.mkdir()
    write_json(out / ANN, coco)


def rates(loaders: list[DataLoader], rounds: int) -> list[float]:
    """Returns the images a second of each loader, medians of the rounds."""
    iterators = [iter(loader) for loader in loaders]
    found: list[list[float]] = [[] for _ in loaders]
    for _ in range(rounds):
        for iterator, values in zip(iterators, found, strict=True):
            for _ in range(SKIPPED):
                next(iterator)
            start = time.perf_counter()
            images = sum(len(next(iterator)['inputs']) for _ in range(BATCHES))
            values.append(images / (time.perf_counter() - start))
    return [statistics.median(values) for values in found]


def row(name: str, cfg: Config, rounds: int, reduced: bool) -> list[str]:
    """Measures a row: MMEngine's loader, ours and that of reduced images."""
    init_default_scope(cfg.default_scope)
    loaders = [
        build.build_dataloader(cfg.train_dataloader, seed=0)
        for build in (Runner, ReliableRunner)
    ]
    if reduced:
        use_reduced_decoding(cfg)
        loaders.append(
            ReliableRunner.build_dataloader(cfg.train_dataloader, 0)
        )
    theirs, *others = rates(loaders, rounds)
    cells = [name, f'{theirs:.0f}']
    for rate in others:
        cells += [f'{rate:.0f}', f'{rate / theirs:.2f}']
    print(*cells, sep='  ', file=sys.stderr)
    return cells + ['-'] * (6 - len(cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('data', type=Path, help='folder of photographs')
    parser.add_argument('--rounds', type=int, default=9, help='default: 9')
    args = parser.parse_args()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),  # of pycocotools
    ):
        large = Path(folder)
        enlarge(args.data, large)
        for name, config in ROWS.items():
            cfg = training_data(config, args.data)
            rows.append(row(name, cfg, args.rounds, reduced=False))
        for name, scale in LARGE.items():
            cfg = training_data(ROWS['1x, 1333x800'], large)
            cfg.train_dataloader.dataset.pipeline[2].scale = scale
            rows.append(row(name, cfg, args.rounds, reduced=True))
    header = ['pipeline', 'MMEngine', 'mmext', 'ratio']
    header += ['mmext, reduced decoding', 'ratio']
    OUT.write_text(
        '`python benchmarks/loader.py DATA`: images a second of one worker, '
        f'medians of {args.rounds} rounds in turn, batches of two photographs '
        'of 640x480 pixels, or of these enlarged to 2560x1920 and saved with '
        f'quality 90. {machine()}.\n\n' + Table(header, rows).markdown() + '\n'
    )
    print(OUT.read_text())


if __name__ == '__main__':
    main()
