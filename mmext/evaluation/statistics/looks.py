# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Levels of a test that is made after several numbers of seeds.

Lan and DeMets 1983, Discrete sequential boundaries for clinical trials: the
error that may be spent until a look depends on the share of the seeds that
are known. With the O'Brien-Fleming function, early looks decide clear cases
only, and the last level is near that of a plan with one look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from mmext.errors import UserError

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def nominal_levels(
    looks: Sequence[int], alpha: float = 0.05
) -> tuple[float, ...]:
    """Returns the two-sided level of the test at each look.

    A difference is shown at the first look whose p-value is below its level.
    Over all looks, this happens to equal methods with probability ``alpha``.

    Args:
        looks: Numbers of seeds a side, in increasing order.
        alpha: Error over all looks. Default: 0.05.

    Raises:
        UserError: The numbers are not positive or do not increase.

    Example:
        >>> [round(level, 4) for level in nominal_levels((3, 5, 8))]
        [0.0014, 0.0126, 0.0449]
    """
    steps = np.diff([0, *looks])
    if not len(looks) or (steps <= 0).any():
        raise UserError(
            f'The looks {list(looks)} are not numbers of seeds in increasing '
            'order.',
            'Name each number once, the smallest first, such as 3, 5, 8.',
        )
    if len(looks) == 1:
        return (alpha,)
    z = float(ndtri(1 - alpha / 2))
    # The sum of the data and its probability, where no look has decided yet.
    place, mass, spent = np.zeros(1), np.ones(1), 0.0
    levels = []
    for look, step in zip(looks, steps.tolist(), strict=True):
        reach, sd = math.sqrt(look / looks[-1]), math.sqrt(step / looks[-1])
        until = 2 * float(ndtr(-z / reach))
        bound = brentq(
            _excess, 0, 40, (reach, sd, place, mass, until - spent), 1e-10
        )
        levels.append(2 * float(ndtr(-bound)))
        new = bound * reach * _NODES
        density = np.exp(-(((new - place[:, None]) / sd) ** 2) / 2)
        density /= sd * math.sqrt(2 * math.pi)
        mass = bound * reach * _WEIGHTS * (mass @ density)
        place, spent = new, until
    return tuple(levels)


def _excess(
    bound: float,
    reach: float,
    sd: float,
    place: np.ndarray,
    mass: np.ndarray,
    target: float,
) -> float:
    """The probability beyond both bounds, minus that to be spent."""
    ends = bound * reach
    outside = ndtr((place - ends) / sd) + ndtr((-ends - place) / sd)
    return float(mass @ outside) - target
