# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Claims of papers, and the verdicts on them, for docs/evidence.md.

A claim is about a contrast, a sum of sides with factors: ``{star: 1, sum:
-1}`` is the gain of star over sum. It holds if the contrast is shown to be
above 0, or with a margin above ``-margin``, and is contradicted if it is shown
to be below. A gain below the plan's is no contradiction: papers rarely say how
much at least. Contrasts are tested between seeds by Welch's test, at the level
of the plan's last complete look, with Holm's correction for the claims of a
plan. With ``pooled``, the trainings of all sides of the plan are taken to vary
equally, as in an analysis of variance: more degrees of freedom with few seeds.

With ``correlation``, it is about the rank correlation of a measure with the
metric over all networks of a plan, which count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr

from mmext.errors import UserError
from mmext.evaluation.statistics.intervals import (
    Estimate,
    estimate,
    holm,
    no_estimate,
    student,
)
from mmext.evaluation.statistics.power import (
    Noise,
    fewest_seeds,
    inflated_sd,
)
from mmext.evaluation.statistics.seeds import (
    satterthwaite,
    seed_and_image_parts,
    seed_image_variance,
)
from mmext.utils.documents import parse_yaml, read_bytes
from mmext.utils.text import count, p_value

SCOPES = ('data set', 'images')
HOLDS, CONTRADICTED = 'holds', 'contradicted'
BELOW, OPEN = 'gain below', 'not settled'
#: Networks below which a rank correlation gets no interval.
FEWEST_NETWORKS = 5


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Args:
        claim: A sentence.
        paper: What the paper measured.
        contrast: Side -> factor. Default: none, for a correlation.
        margin: A loss that counts as none, in points or in the measure's
            unit. Default: the claim is a gain.
        measure: What is compared: a value of ``measures.json``. Default: the
            metric of the plan.
        correlation: Whether the claim is that the measure rises with the
            metric over all sides. Default: False.
        pooled: Whether the variance between seeds is that of all sides of the
            plan. Default: False.
    """

    claim: str
    paper: str
    contrast: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    measure: str | None = None
    correlation: bool = False
    pooled: bool = False

    @property
    def unit(self) -> int:
        """Shares are shown in points, measures as they are."""
        return 1 if self.measure else 100

    def bounds(self, gain: float) -> tuple[float, float]:
        """Above the first it holds; below the second the gain is excluded.

        ``gain`` is that of the plan, in points.
        """
        if self.margin is not None:
            return -self.margin / self.unit, -self.margin / self.unit
        return 0.0, 0.0 if self.measure else gain / self.unit


@dataclass(frozen=True)
class Contrast:
    """The estimate of a contrast, from 0 to 1.

    Args:
        value: On all images.
        between: (P,) variances between seeds, of each side or one of all.
        degrees: (P,) degrees of freedom of these variances.
        alone: Variance over images that is not in ``between``.
        images: Number of images.
        training: Variance between seeds with one training a side.
        seeds: Fewest trainings of a side.
    """

    value: float
    between: np.ndarray
    degrees: np.ndarray
    alone: float
    images: int
    training: float
    seeds: int

    def estimate(
        self, scope: str, level: float, bound: float = 0.0
    ) -> Estimate:
        """The contrast less ``bound``, for the scope of a plan."""
        parts, sizes = self.between, self.degrees + 1
        if scope == 'images':
            parts = np.append(parts, self.alone)
            sizes = np.append(sizes, self.images)
        variance, df = satterthwaite(parts, sizes)
        return student(self.value - bound, float(variance), float(df), level)

    def needed(self, distance: float, alpha: float, tests: int) -> str:
        """More trainings a side that show a distance in 4 of 5 plans.

        As for two sides whose difference has the variance of the contrast, 50
        a side at most.
        """
        each, df = (self.training / 2) ** 0.5, int(self.degrees.sum())
        found = fewest_seeds(
            distance,
            Noise(inflated_sd(each, df), image_se=0.0, images=1),
            scope='data set',
            levels=(alpha,),
            candidates=tests,
        )
        return count(max(1, (found or 50) - self.seeds), 'more seed')


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over networks.

    The interval is that of Bonett and Wright (Psychometrika 65, 2000), the
    test Student's.

    Args:
        value: The correlation.
        networks: Number of networks.
    """

    value: float
    networks: int

    def estimate(
        self, scope: str, level: float, bound: float = 0.0
    ) -> Estimate:
        """The correlation; nothing is known of other images."""
        n, rho = self.networks, self.value
        if scope == 'images' or n < FEWEST_NETWORKS or abs(rho) == 1:
            return no_estimate(rho, level)
        se = math.sqrt((1 + rho**2 / 2) / (n - 3))
        reach = -ndtri((1 - level) / 2) * se
        low, high = np.tanh(math.atanh(rho) + np.array([-reach, reach]))
        t = rho * math.sqrt((n - 2) / (1 - rho**2))
        found = student(t, 1.0, n - 2, level)
        intervals = dict.fromkeys(found.intervals, (float(low), float(high)))
        return Estimate(rho, se, intervals, found.p, level)

    def needed(self, distance: float, alpha: float, tests: int) -> str:
        """More networks that show this correlation in 4 of 5 studies."""
        z = ndtri(1 - alpha / tests / 2) + ndtri(0.8)
        far = math.atanh(min(abs(distance), 0.99)) or 0.01
        found = 3 + (1 + self.value**2 / 2) * (z / far) ** 2
        return count(max(1, math.ceil(found) - self.networks), 'more network')


def correlation_of(pairs: Sequence[tuple[float, float]]) -> Correlation | None:
    """Returns the rank correlation of pairs, None for fewer than three."""
    if len(pairs) < 3:
        return None
    found = spearmanr(*zip(*pairs, strict=True)).statistic
    return Correlation(float(found), len(pairs))


def contrast_of(
    sides: Sequence[tuple[float, np.ndarray]],
    resamples: int,
    images: int,
    pool: Sequence[np.ndarray] = (),
) -> Contrast:
    """Returns the contrast of sides, each a factor and the values of its runs.

    Args:
        sides: (S, 1 + B + J) values a side, as of `Resampled`; (S, 1) of
            measures, which are not resampled.
        resamples: B.
        images: Number of images.
        pool: Sides whose variances between seeds are taken as equal. Default:
            those of the contrast have each its own.
    """
    end = resamples + 1
    total = sum(f * v.mean(0) for f, v in sides)
    squares = np.array([f**2 for f, _ in sides])
    sizes = np.array([len(v) for _, v in sides])
    variances, degrees = between_seeds([v[:, 0] for _, v in sides])
    if pool:
        each, counts = between_seeds([v[:, 0] for v in pool])
        degrees = np.array([counts.sum()])
        variances = np.full(len(sides), np.dot(each, counts) / degrees[0])
    between = squares * variances / sizes
    if pool:
        between = between.sum(keepdims=True)
    alone = math.nan
    if resamples:
        both = estimate(total[0], total[1:end], total[end:], images=images)
        shared = sum(
            f**2 * seed_image_variance(v[:, :end]) / len(v) for f, v in sides
        )
        parts = seed_and_image_parts(between, both.se**2, shared)
        alone = float(parts[-1])
    return Contrast(
        float(total[0]),
        between,
        degrees,
        alone,
        images,
        training=float(np.dot(squares, variances)),
        seeds=int(sizes.min()),
    )


def between_seeds(sides: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Returns the variance between the runs of each side, and its degrees."""
    variances = [np.var(values, ddof=1) for values in sides]
    return np.array(variances), np.array([len(x) - 1 for x in sides])


def read_claims(folder: Path) -> list[Claim]:
    """Reads ``claims.yaml``."""
    path = folder / 'claims.yaml'
    try:
        claims = [Claim(**x) for x in parse_yaml(read_bytes(path), path)]
    except TypeError as error:
        raise UserError(
            f'{path}: {error}',
            'Give a list of claims with claim, paper, contrast and perhaps '
            'margin and measure.',
        ) from error
    for claim in claims:
        if bool(claim.contrast) == claim.correlation:
            about = 'a contrast and a correlation'
            raise UserError(
                f'{path}: {claim.claim!r} is about '
                f'{about if claim.contrast else "no contrast"}',
                'Give a contrast of sides, or correlation: true.',
            )
        if claim.correlation and not claim.measure:
            raise UserError(
                f'{path}: the correlation of {claim.claim!r} has no measure',
                'Name a value of measures.json, such as measure: tns.',
            )
    return claims


def claim_rows(
    name: str,
    claims: Sequence[Claim],
    contrasts: Sequence[Contrast | Correlation | None],
    alphas: Sequence[float],
    scope: str,
    gain: float,
) -> list[list[str]]:
    """Returns a row for each claim; None stands for missing runs."""
    bounds = [claim.bounds(gain) for claim in claims]
    p_sign, p_gain = (
        holm(
            np.array(
                [
                    # What is missing counts as a test that shows nothing.
                    c.estimate(scope, 0.95, b[end]).p if c else 1.0
                    for c, b in zip(contrasts, bounds, strict=True)
                ]
            )
        ).tolist()
        for end in (0, 1)
    )
    rows = []
    for n, (claim, c, (low, high)) in enumerate(
        zip(claims, contrasts, bounds, strict=True)
    ):
        words = ['-', '-']
        if c is not None:
            found = [c.estimate(x, 0.95) for x in SCOPES]
            words = [in_words(x, claim.unit) for x in found]
        if c is None:
            verdict = f'{OPEN}: runs are missing'
        elif p_sign[n] < alphas[n]:
            word = HOLDS if c.value > low else CONTRADICTED
            verdict = f'**{word}**, p {p_value(p_sign[n])}'
        elif p_gain[n] < alphas[n] and c.value < high:
            word = f'{BELOW} +{gain:g}' if high > low else CONTRADICTED
            verdict = f'**{word}**, p {p_value(p_gain[n])}'
        else:
            distance = (high - low) or -low or abs(c.value)
            more = c.needed(distance, alphas[n], len(claims))
            verdict = f'{OPEN}: needs {more}'
        rows.append([claim.claim, claim.paper, name, *words, verdict])
    return rows


def in_words(found: Estimate, unit: int) -> str:
    """Returns ``+1.23 [+0.45, +2.01]``."""
    if math.isnan(found.se):
        return '-'
    value, low, high = (unit * x for x in (found.value, *found.interval))
    return f'{value:+.2f} [{low:+.2f}, {high:+.2f}]'
