# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Kendall's tau and Spearman's rho between two scores of models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ConstantInputWarning, kendalltau, spearmanr

from mmext.errors import UserError


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its 95 % bootstrap interval over models.

    Attributes:
        value: The coefficient, in [-1, 1].
        low: Lower end of the interval; None for fewer than four models.
        high: Upper end of the interval.
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None:
            return f'{self.value:+.2f} (no interval: fewer than 4 models)'
        return f'{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]'


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Correlation, Correlation]:
    """Computes Kendall's tau and Spearman's rho with intervals.

    Args:
        x: One score of each model, such as its TNS.
        y: The other score, such as its AP.
        resamples: Bootstrap resamples of the models. Default: 2000.
        seed: Seed of the resampling. Default: 0.

    Raises:
        UserError: There are fewer than two models, a score is not finite, or
            all scores are equal.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x).all() and np.isfinite(y).all()
    if not known or len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        raise UserError(
            f'A rank correlation needs two models with different scores; '
            f'got {x.tolist()} and {y.tolist()}.'
        )
    picks = np.random.default_rng(seed).integers(
        0, len(x), (resamples, len(x))
    )
    return tuple(
        _with_interval(measure, x, y, picks)
        for measure in (kendalltau, spearmanr)
    )


def _with_interval(
    measure: Callable[[np.ndarray, np.ndarray], tuple[float, float]],
    x: np.ndarray,
    y: np.ndarray,
    picks: np.ndarray,
) -> Correlation:
    value = float(measure(x, y)[0])
    if len(x) < 4:
        return Correlation(value, None, None)
    with warnings.catch_warnings():
        # A resample of equal scores gives NaN, which is left out below.
        warnings.simplefilter('ignore', ConstantInputWarning)
        drawn = np.array([measure(x[p], y[p])[0] for p in picks])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Correlation(value, float(low), float(high))
