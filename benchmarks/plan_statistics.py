# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures what `mmext plan` promises: errors, looks and power.

It draws experiments with code that shares nothing with the simulation of
`mmext/evaluation/statistics/power.py`, tests them as a report does, and counts
how often a difference is shown: between equal methods, at the looks of a plan,
and with a true gain, beside the power that the plan states.

    python benchmarks/plan_statistics.py

The metric of most experiments is a mean over 300 images. Its value on an image
is the method's (method x image), plus the seed's, plus noise of seed and image
(seed x image). The others are detectors with AP over 10 IoU thresholds. The
unit of all tables but that of AP is e, the standard error over images of the
difference of the methods.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmext.evaluation.coco.accumulate import accumulate_weighted, summarize
from mmext.evaluation.coco.matching import ClassMatches, Matches
from mmext.evaluation.statistics.intervals import Estimate, estimate, student
from mmext.evaluation.statistics.looks import nominal_levels
from mmext.evaluation.statistics.power import Noise, power
from mmext.evaluation.statistics.resampling import (
    bootstrap_weights,
    jackknife_weights,
)
from mmext.evaluation.statistics.seeds import seed_test, two_level

RESULT = Path(__file__).parent / 'results' / 'plan_statistics.md'
IMAGES, RESAMPLES, CLASSES = 300, 200, 3
AP_IMAGES, AP_RESAMPLES = 120, 120
LOOKS = (3, 5, 8)
#: Standard deviations between seeds: alone, then of seed x image.
SEED_SDS = (0, 0.5, 1, 2, 5)
#: Gain, seed SD, seed x image SD and seeds of plans.
PLANS = (
    (3.5, 0.5, 0, 3),
    (3.5, 1, 0, 5),
    (3.5, 1, 0.5, 5),
    (3, 0, 1, 5),
    (5, 2, 0, 3),
    (5, 2, 1, 5),
    (4, 2, 0, 8),
    (5, 3, 1, 8),
)
Sides = tuple[np.ndarray, np.ndarray]


def means(
    rng: np.random.Generator,
    weights: np.ndarray,
    seeds: int,
    gain: float,
    seed_sd: float,
    noise_sd: float,
    error: float = 1.0,
) -> tuple[Sides, float]:
    """Returns (S, 1 + B) values of two sides, and the error over images."""
    sides, errors = [], []
    for k in range(2):
        method = rng.normal(0, error * math.sqrt(IMAGES / 2), IMAGES)
        noise = rng.normal(0, noise_sd * math.sqrt(IMAGES), (seeds, IMAGES))
        seed = rng.normal(k * gain, seed_sd, (seeds, 1))
        sides.append((method + seed + noise) @ weights)
        errors.append(method.mean())
    return (sides[0], sides[1]), errors[1] - errors[0]


def mean_tests(sides: Sides, error: float, seeds: int) -> list[Estimate]:
    """Returns the tests of the first seeds: on images, on the data set."""
    base, cand = (side[:seeds] for side in sides)
    delta = cand.mean(0) - base.mean(0)
    variance = float(np.var(delta[1:], ddof=1))
    image = student(float(delta[0]), variance, IMAGES - 1)
    return [
        two_level(image, base, cand, images=IMAGES),
        seed_test(base[:, 0], cand[:, 0] - error),
    ]


def detectors(
    rng: np.random.Generator, seed_sd: float, gain: float
) -> Iterator[list[Matches]]:
    """Yields five seeds of a baseline, of its equal and of a better one."""
    images = AP_IMAGES
    image = np.repeat(np.arange(images), 1 + rng.poisson(2, images))
    category = rng.choice(CLASSES, image.size)
    objects = np.zeros((images, CLASSES, 1), np.int32)
    np.add.at(objects, (image, category, 0), 1)
    ease = rng.normal(0, 0.5, images)
    common = 0.9 + ease[image] + rng.normal(0, 0.9, image.size)
    for skill in (0, 0, gain):
        method = common + skill + rng.normal(0, 0.4, image.size)
        side = []
        for _ in range(5):
            ability = method + rng.normal(0, seed_sd)
            ability = ability + rng.normal(0, 0.4, image.size)
            iou = (4 + 2.6 * ability + rng.normal(0, 1, image.size)).clip(0)
            seen = ability > -1.8
            false = np.repeat(np.arange(images), rng.poisson(4, images))
            columns = (
                np.r_[image[seen], false],
                np.r_[category[seen], rng.choice(CLASSES, false.size)],
                np.r_[ability[seen], rng.normal(-1.2, 1, false.size)],
                np.r_[iou[seen].clip(0, 10).astype(int), 0 * false],
            )
            classes = [_class(k, *columns) for k in range(CLASSES)]
            names = tuple(map(str, range(CLASSES)))
            side.append(Matches(names, ('all',), objects, tuple(classes)))
        yield side


def _class(
    k: int,
    image: np.ndarray,
    category: np.ndarray,
    score: np.ndarray,
    thresholds: np.ndarray,
) -> ClassMatches:
    rows = np.flatnonzero(category == k)
    rows = rows[np.argsort(-score[rows])]
    hit = ((1 << thresholds[rows]) - 1).astype(np.uint16)[None]
    return ClassMatches(
        image=image[rows].astype(np.int32),
        score=score[rows],
        rank=np.zeros(rows.size, np.int16),
        hit=hit,
        ignored=np.zeros_like(hit),
    )


def ap_test(sides: Sides) -> Estimate:
    """Returns the test of (S, 1 + B + J) values on images like these."""
    base, cand = sides
    delta = cand.mean(0) - base.mean(0)
    first = AP_RESAMPLES + 1
    image = estimate(float(delta[0]), delta[1:first], delta[first:])
    return two_level(image, base[:, :first], cand[:, :first], images=AP_IMAGES)


def shown(
    tests: Sequence[Estimate], levels: Sequence[float] = (0.05,)
) -> float:
    """Returns the sign of the first difference that is shown, or 0."""
    for found, level in zip(tests, levels, strict=True):
        if found.p < level:
            return math.copysign(1, found.value)
    return 0


class Benchmark:
    """Runs the experiments and shows how far they are."""

    def __init__(self, trials: int, ap_trials: int) -> None:
        self.trials, self.ap_trials = trials, ap_trials
        self.start = time.time()
        rng = np.random.default_rng(1)
        drawn = bootstrap_weights(IMAGES, RESAMPLES, rng)
        self.weights = np.vstack([np.ones(IMAGES), drawn]).T / IMAGES

    def _count(self, trials: int, what: str) -> Iterator[int]:
        for trial in range(trials):
            if trial % 100 == 0:
                spent = time.time() - self.start
                text = f'{what}: {trial}/{trials}, {spent:.0f} s'
                print(f'\r{text:70}', end='', flush=True)
            yield trial

    def mean_shares(
        self,
        gain: float,
        seed_sd: float,
        noise_sd: float,
        looks: Sequence[int],
        error: float = 1.0,
    ) -> np.ndarray:
        """Returns (2, 2) shares shown worse and better, of each scope."""
        rng = np.random.default_rng(7)
        levels = nominal_levels(looks)
        found = []
        what = f'SD {seed_sd} and {noise_sd}, seeds {looks}, gain {gain}'
        for _ in self._count(self.trials, what):
            sides, shift = means(
                rng, self.weights, looks[-1], gain, seed_sd, noise_sd, error
            )
            tests = [mean_tests(sides, shift, look) for look in looks]
            found.append([shown(t, levels) for t in zip(*tests, strict=True)])
        signs = np.array(found)
        return np.stack([(signs < 0).mean(0), (signs > 0).mean(0)], 1)

    def null(self) -> list[str]:
        """Returns the table of equal methods."""
        lines = [
            '| seed SD / e | seed x image SD / e | '
            + ' | '.join(f'images, {s} seeds' for s in (2, 3, 5))
            + ' | '
            + ' | '.join(f'data set, {s} seeds' for s in (2, 3, 5))
            + ' |',
            '|---:|---:|' + '---:|' * 6,
        ]
        cells = [(sd, noise, 1.0) for noise in (0, 1) for sd in SEED_SDS]
        for seed_sd, noise_sd, error in [*cells, (0, 1, 0.0)]:
            shares = [
                self.mean_shares(0, seed_sd, noise_sd, (s,), error).sum(1)
                for s in (2, 3, 5)
            ]
            texts = [percent(x) for x in np.array(shares).T.ravel()]
            if not (seed_sd or noise_sd):
                texts[3:] = ['no test'] * 3
            sds = (
                (f'{seed_sd}', f'{noise_sd}')
                if error
                else ('0', '(e is 0) any')
            )
            lines.append(f'| {" | ".join([*sds, *texts])} |')
        return lines

    def looks(self) -> list[str]:
        """Returns the table of equal methods at several looks."""
        lines = [
            '| seed SD / e | seed x image SD / e | images | data set |',
            '|---:|---:|---:|---:|',
        ]
        for seed_sd, noise_sd in ((0, 1), (1, 0), (1, 1), (5, 0)):
            shares = self.mean_shares(0, seed_sd, noise_sd, LOOKS).sum(1)
            texts = ' | '.join(map(percent, shares))
            lines.append(f'| {seed_sd} | {noise_sd} | {texts} |')
        return lines

    def power(self) -> list[str]:
        """Returns the table of plans with a gain."""
        lines = [
            '| gain / e | seed SD / e | seed x image SD / e | seeds | scope '
            '| the plan says | measured | difference |',
            '|---:|---:|---:|---|---|---:|---:|---:|',
        ]
        for gain, seed_sd, noise_sd, seeds in PLANS:
            # Between trainings on these images: both parts.
            noise = Noise(math.hypot(seed_sd, noise_sd), 1, IMAGES, noise_sd)
            for looks in ((seeds,), LOOKS) if seeds == 8 else ((seeds,),):
                shares = self.mean_shares(gain, seed_sd, noise_sd, looks)
                for scope, share in zip(
                    ('images', 'data set'), shares[:, 1], strict=True
                ):
                    planned = power(
                        gain,
                        seeds,
                        noise,
                        scope=scope,
                        levels=nominal_levels(looks),
                        looks=looks,
                    )
                    number = ', '.join(map(str, looks))
                    lines.append(
                        f'| {gain} | {seed_sd} | {noise_sd} | {number} '
                        f'| {scope} | {row(planned, share)} |'
                    )
        return lines

    def detections(self) -> list[str]:
        """Returns the table of AP, of equal and of better detectors."""
        rng = np.random.default_rng(3)
        weights = np.concatenate(
            [
                np.ones((1, AP_IMAGES), np.int32),
                bootstrap_weights(AP_IMAGES, AP_RESAMPLES, rng),
                jackknife_weights(AP_IMAGES, 30, rng),
            ]
        )
        lines = [
            '| seed SD, AP | of it seed x image | e, AP | seeds | null '
            'rejected | gain, AP | the plan says | measured | difference |',
            '|---:|---:|---:|---|---:|---:|---:|---:|---:|',
        ]
        for seed_sd, gain in ((0.0, 0.12), (0.08, 0.2)):
            trials = []
            for _ in self._count(self.ap_trials, f'AP, skill SD {seed_sd}'):
                trials.append(
                    [
                        [
                            summarize(
                                accumulate_weighted(m, weights, threads=1),
                                ('AP',),
                            )['AP']
                            for m in side
                        ]
                        for side in detectors(rng, seed_sd, gain)
                    ]
                )
            lines += _detections(np.array(trials))
        return lines


def _detections(trials: np.ndarray) -> list[str]:
    """Rows of the table from (trials, 3, 5, 1 + B + J) values."""
    known = trials[..., : AP_RESAMPLES + 1]
    variance = known[..., 0].var(2, ddof=1).mean()
    change = known[..., 1:] - known[..., :1]
    shared = change.var(2, ddof=1).mean()
    # Of the variance over images, what five seeds do not average.
    delta = known[:, 1].mean(1) - known[:, 0].mean(1)
    alone = delta[:, 1:].var(1, ddof=1).mean() - 2 * shared / 5
    gain = float((known[:, 2, :, 0] - known[:, 0, :, 0]).mean())
    noise = Noise(
        math.sqrt(variance),
        math.sqrt(alone),
        AP_IMAGES,
        math.sqrt(min(shared, variance)),
    )
    lines = []
    for looks in ((2,), (3,), (5,), (3, 5)):
        levels = nominal_levels(looks)
        signs = np.array(
            [
                [
                    shown(
                        [ap_test((t[0][:s], other[:s])) for s in looks],
                        levels,
                    )
                    for other in t[1:]
                ]
                for t in trials
            ]
        )
        planned = power(gain, looks[-1], noise, levels=levels, looks=looks)
        values = (noise.seed_sd, noise.seed_image_sd, noise.image_se)
        texts = [f'{100 * x:.2f}' for x in values]
        lines.append(
            f'| {" | ".join(texts)} | {", ".join(map(str, looks))} '
            f'| {percent((signs[:, 0] != 0).mean())} | {100 * gain:.2f} '
            f'| {row(planned, (signs[:, 1] > 0).mean())} |'
        )
    return lines


def percent(share: float) -> str:
    """Returns ``4.9 %``."""
    return f'{100 * share:.1f} %'


def row(planned: float, measured: float) -> str:
    """Returns three cells of a table."""
    difference = f'{100 * (measured - planned):+.1f}'
    return f'{percent(planned)} | {percent(measured)} | {difference}'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--trials', type=int, default=4000)
    parser.add_argument('--ap-trials', type=int, default=1200)
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    run = Benchmark(args.trials, args.ap_trials)
    sections = (
        (
            f'Equal methods, different at 5 %, {args.trials} experiments:',
            run.null,
        ),
        (
            f'Equal methods, looks at {LOOKS} seeds, {args.trials} '
            'experiments:',
            run.looks,
        ),
        (f'Power of plans, {args.trials} experiments:', run.power),
        (
            f'AP of simulated detectors on {AP_IMAGES} images, '
            f'{args.ap_trials} experiments:',
            run.detections,
        ),
    )
    text = 'What `mmext plan` promises; see `docs/comparing.md`. '
    text += 'Two cores; `python benchmarks/plan_statistics.py`.\n'
    for title, measure in sections:
        text += '\n'.join(['', title, '', *measure(), ''])
    args.out.write_text(text)
    print(f'\n{text}')


if __name__ == '__main__':
    main()
