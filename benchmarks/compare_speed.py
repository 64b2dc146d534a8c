# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures time and memory of a comparison of COCO val2017's size.

There are 5,000 images, 480,000 detections a run, 80 classes and 1,000
resamples: first without AP by size, then with all metrics. It prints wall and
processor time. On a busy machine only processor time can be compared.

    python benchmarks/compare_speed.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLASSES = 80


def make_truth(images: int, seed: int = 0) -> dict:
    """About 7 objects an image, with class frequencies as in COCO."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(CLASSES, 0.5))
    count = rng.poisson(7.3, images)
    image = np.repeat(np.arange(1, images + 1), count)
    # The objects of an image share few classes (2.9 in COCO).
    favourites = rng.choice(CLASSES, (images + 1, 3), p=share)
    category = favourites[image, rng.integers(0, 3, image.size)] + 1
    size = np.exp(rng.normal(4, 1, (image.size, 2))).clip(4, 600)
    box = np.concatenate([rng.uniform(0, [640, 480], size.shape), size], 1)
    crowd = rng.random(image.size) < 0.012
    return {
        'images': [
            {'id': i, 'width': 640, 'height': 480, 'file_name': f'{i}.jpg'}
            for i in range(1, images + 1)
        ],
        'annotations': [
            {
                'id': n + 1,
                'image_id': int(image[n]),
                'category_id': int(category[n]),
                'bbox': box[n].round(2).tolist(),
                'area': float(0.7 * size[n, 0] * size[n, 1]),
                'iscrowd': int(crowd[n]),
            }
            for n in range(image.size)
        ],
        'categories': [
            {'id': c, 'name': f'class{c}'} for c in range(1, CLASSES + 1)
        ],
    }


def make_detections(truth: dict, an_image: int, seed: int) -> list[dict]:
    """Half are near objects, with scores that depend on the distance."""
    rng = np.random.default_rng(seed)
    anns = truth['annotations']
    owner = np.array([a['image_id'] for a in anns])
    boxes = np.array([a['bbox'] for a in anns])
    labels = np.array([a['category_id'] for a in anns])
    image = np.repeat([i['id'] for i in truth['images']], an_image)
    first = np.searchsorted(owner, image, 'left')
    count = np.searchsorted(owner, image, 'right') - first
    near = (rng.random(image.size) < 0.5) & (count > 0)
    source = first + (rng.random(image.size) * count).astype(int)
    source = np.minimum(source, len(anns) - 1)
    shift = rng.exponential(0.15, (image.size, 1))
    jitter = rng.normal(0, 1, (image.size, 4)) * shift
    box = boxes[source]
    moved = np.concatenate(
        [
            box[:, :2] + box[:, 2:] * jitter[:, :2],
            box[:, 2:] * np.exp(jitter[:, 2:].clip(-1, 1)),
        ],
        1,
    )
    size = np.exp(rng.normal(4, 1, (image.size, 2))).clip(4, 600)
    clutter = np.concatenate([rng.uniform(0, [640, 480], size.shape), size], 1)
    final = np.where(near[:, None], moved, clutter).round(2)
    right = near & (rng.random(image.size) < 0.8)
    other = rng.integers(1, CLASSES + 1, image.size)
    category = np.where(right, labels[source], other)
    score = rng.normal(-2.5, 1, image.size)
    score += 4 * near * np.exp(-3 * shift[:, 0])
    score = (1 / (1 + np.exp(-score))).round(5)
    return [
        {'image_id': i, 'category_id': c, 'bbox': b, 'score': s}
        for i, c, b, s in zip(
            image.tolist(),
            category.tolist(),
            final.tolist(),
            score.tolist(),
            strict=True,
        )
    ]


def timed(what: str, work: Callable[[], object]) -> tuple:
    """Runs, prints and returns (result, wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f'{what:<40} {wall:8.1f} s wall {cpu:8.1f} s CPU', flush=True)
    return result, wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--detections', type=int, default=96, help='an image')
    parser.add_argument('--resamples', type=int, default=1000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--part', choices=('quick', 'full'))
    args = parser.parse_args()
    if args.part is None:  # one process each, to measure peak memory
        for part in ('quick', 'full'):
            command = [sys.executable, *sys.argv, '--part', part]
            os.spawnv(os.P_WAIT, sys.executable, command)
        return
    from mmext.evaluation.compare import compare

    with tempfile.TemporaryDirectory() as folder:
        truth = make_truth(args.images)
        Path(folder, 'gt.json').write_text(json.dumps(truth))
        for i, name in enumerate(('a', 'b')):
            found = make_detections(truth, args.detections, i + 1)
            Path(folder, f'{name}.bbox.json').write_text(json.dumps(found))
        print(
            f'{args.part}: {args.images} images, {len(found)} detections '
            f'a run, {len(truth["annotations"])} objects, {CLASSES} classes, '
            f'{args.resamples} resamples, {args.threads} threads'
        )
        del truth, found
        report, _, _ = timed(
            'read, match, resample, intervals',
            lambda: compare(
                [Path(folder, f'{name}.bbox.json') for name in ('a', 'b')],
                ann=Path(folder, 'gt.json'),
                resamples=args.resamples,
                quick=args.part == 'quick',
                threads=args.threads,
            ),
        )
        found = report.comparisons[0]
        print(
            f'AP {found.baseline["AP"][0]:.3f} and '
            f'{found.candidate["AP"][0]:.3f}, {len(found.differences)} '
            f'metrics, {len(found.classes)} classes'
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'peak memory {peak:.2f} GiB')


if __name__ == '__main__':
    main()
