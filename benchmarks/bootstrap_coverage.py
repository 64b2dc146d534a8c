# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the coverage of the intervals of tools/compare.py.

It draws test sets from a simulated population of images with two detectors of
known difference, and counts how often the 95 % interval contains it. It also
compares two equally good detectors, and counts how often the hypothesis of no
difference is rejected at 5 %.

    python benchmarks/bootstrap_coverage.py --images 100 250 1000
    python benchmarks/bootstrap_coverage.py --report

An image has a few classes, and objects of a class come in groups. Images and
objects differ in difficulty, which is the same for both detectors, and
classes in frequency (1 / rank) and difficulty. A detector finds an object
with a probability, a score and an IoU that depend on its skill, and adds
false positives. The true difference is that on 200,000 images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from mmext.evaluation.coco.accumulate import accumulate_weighted, summarize
from mmext.evaluation.coco.matching import ClassMatches, Matches
from mmext.evaluation.statistics.intervals import METHODS, estimate
from mmext.evaluation.statistics.resampling import (
    bootstrap_weights,
    jackknife_weights,
)

METRICS = ('AP', 'AP50', 'APs')
SKILLS = (0.0, 0.1, 0.0)  # baseline, better candidate, equal candidate
AREA_SHARES = (0.4, 0.35, 0.25)
AREA_EASE = np.array([-1.0, 0.1, 0.6])
ALL_BITS = np.uint16((1 << 10) - 1)
RESULTS = Path(__file__).parent / 'results'


def draw(rng: np.random.Generator, n: int, classes: int) -> list[Matches]:
    """Returns the matches of the three detectors on n images."""
    share = 1 / np.arange(1, classes + 1)
    share /= share.sum()
    ease = np.linspace(-0.5, 0.5, classes)[
        np.random.default_rng(5).permutation(classes)
    ]
    groups = 1 + rng.poisson(0.8, n)
    image = np.repeat(np.arange(n), groups)
    category = rng.choice(classes, image.size, p=share)
    size = rng.geometric(0.45, image.size)
    image, category = np.repeat(image, size), np.repeat(category, size)
    area = rng.choice(3, image.size, p=AREA_SHARES)
    image_ease = rng.normal(0, 0.5, n)
    common = 0.9 + image_ease[image] + AREA_EASE[area] + ease[category]
    common += rng.normal(0, 0.9, image.size)
    objects = np.zeros((n, classes, 2), np.int32)
    np.add.at(objects[..., 0], (image, category), 1)
    small = area == 0
    np.add.at(objects[..., 1], (image[small], category[small]), 1)
    found = []
    for skill in SKILLS:
        ability = common + skill + rng.normal(0, 0.5, image.size)
        quality = 4 + 2.6 * ability + rng.normal(0, 1.2, image.size)
        seen = ability > rng.normal(-1.8, 0.5, image.size)
        score = ability + 0.4 + rng.normal(0, 0.8, image.size)
        false = rng.poisson(6 * np.exp(0.4 * image_ease))
        at = np.repeat(np.arange(n), false)
        columns = (
            np.r_[image[seen], at],
            np.r_[category[seen], rng.choice(classes, at.size, p=share)],
            np.r_[area[seen], rng.choice(3, at.size, p=AREA_SHARES)],
            np.r_[
                score[seen],
                rng.normal(-1.2, 1, at.size) + 0.3 * image_ease[at],
            ],
            np.r_[
                quality[seen].clip(0, 10).astype(int),
                np.zeros(at.size, int),
            ],
        )
        found.append(
            Matches(
                names=tuple(map(str, range(classes))),
                areas=('all', 'small'),
                objects=objects,
                classes=tuple(_class(k, *columns) for k in range(classes)),
            )
        )
    return found


def _class(
    k: int,
    image: np.ndarray,
    category: np.ndarray,
    area: np.ndarray,
    score: np.ndarray,
    quality: np.ndarray,
) -> ClassMatches:
    rows = np.flatnonzero(category == k)
    rows = rows[np.argsort(-score[rows])]
    hit = ((1 << quality[rows]) - 1).astype(np.uint16)
    small = area[rows] == 0
    return ClassMatches(
        image=image[rows].astype(np.int32),
        score=score[rows],
        rank=np.zeros(rows.size, np.int16),
        hit=np.stack([hit, np.where(small, hit, 0)]),
        ignored=np.stack([0 * hit, np.where(small, 0, ALL_BITS)]),
    )


def differences(
    rng: np.random.Generator, weights: np.ndarray, classes: int
) -> list[dict[str, np.ndarray]]:
    """Returns metric -> (B,) differences, of both candidates."""
    values = [
        summarize(accumulate_weighted(m, weights, threads=1), METRICS)
        for m in draw(rng, weights.shape[1], classes)
    ]
    return [
        {m: other[m] - values[0][m] for m in METRICS} for other in values[1:]
    ]


def truth(classes: int) -> dict[str, float]:
    """Returns the differences on 200,000 images."""
    rng = np.random.default_rng(2**20)
    ones = np.ones((1, 50_000), np.int32)
    parts = [differences(rng, ones, classes)[0] for _ in range(4)]
    return {m: float(np.mean([p[m][0] for p in parts])) for m in METRICS}


def trial(seed: int, n: int, classes: int, resamples: int) -> dict:
    """Returns the intervals of one test set, and the p-value of the null."""
    rng = np.random.default_rng([seed, n, classes])
    weights = np.concatenate(
        [
            np.ones((1, n), np.int32),
            bootstrap_weights(n, resamples, rng),
            jackknife_weights(n, 100, rng),
        ]
    )
    better, equal = differences(rng, weights, classes)
    result: dict = {}
    for metric in METRICS:
        found = [
            estimate(
                float(d[metric][0]),
                d[metric][1 : resamples + 1],
                d[metric][resamples + 1 :],
            )
            for d in (better, equal)
        ]
        result[metric] = {
            'value': found[0].value,
            'intervals': found[0].intervals,
            'p_null': found[1].p,
            'null': found[1].intervals,
        }
    return result


def run(args: argparse.Namespace, n: int) -> None:
    """Runs the trials that are missing; it can be interrupted."""
    path = args.results / f'bootstrap_coverage_{args.classes}_{n}.jsonl'
    args.results.mkdir(exist_ok=True)
    done = len(path.read_text().splitlines()) if path.exists() else 0
    start = time.time()
    for count, seed in enumerate(range(done, args.trials), 1):
        result = trial(seed, n, args.classes, args.resamples)
        with path.open('a') as stream:
            stream.write(json.dumps(result) + '\n')
        left = (time.time() - start) / count * (args.trials - seed - 1)
        print(
            f'\r{n} images: trial {seed + 1}/{args.trials}, '
            f'{left / 60:.0f} min left ',
            end='',
            flush=True,
        )
    print()


def report(args: argparse.Namespace) -> str:
    """Returns a Markdown table of all results."""
    path = args.results / f'bootstrap_coverage_{args.classes}_truth.json'
    true = json.loads(path.read_text())
    lines = [
        '| images | metric | trials | '
        + ' | '.join(METHODS)
        + ' | null rejected at 5 % |',
        '|---:|---|---:|' + '---:|' * (len(METHODS) + 1),
    ]
    files = args.results.glob(f'bootstrap_coverage_{args.classes}_*.jsonl')
    for file in sorted(files, key=lambda f: int(f.stem.split('_')[-1])):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for metric in METRICS:
            cells = []
            for method in METHODS:
                ends = np.array([r[metric]['intervals'][method] for r in rows])
                inside = (ends[:, 0] <= true[metric]) & (
                    true[metric] <= ends[:, 1]
                )
                cells.append(f'{100 * inside.mean():.1f} %')
            null = np.mean([r[metric]['p_null'] < 0.05 for r in rows])
            lines.append(
                f'| {file.stem.split("_")[-1]} | {metric} | {len(rows)} | '
                + ' | '.join(cells)
                + f' | {100 * null:.1f} % |'
            )
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--images', type=int, nargs='+', default=[100, 250])
    parser.add_argument('--classes', type=int, default=8)
    parser.add_argument('--trials', type=int, default=500)
    parser.add_argument('--resamples', type=int, default=300)
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument('--report', action='store_true')
    args = parser.parse_args()
    if not args.report:
        args.results.mkdir(exist_ok=True)
        path = args.results / f'bootstrap_coverage_{args.classes}_truth.json'
        if not path.exists():
            path.write_text(json.dumps(truth(args.classes)))
        for n in args.images:
            run(args, n)
    print(report(args))


if __name__ == '__main__':
    main()
