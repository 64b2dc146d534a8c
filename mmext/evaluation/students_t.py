# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Student's t distribution, of which the standard library has none."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

_legendre = cache(np.polynomial.legendre.leggauss)


def t_two_sided(t: float, df: float) -> float:
    """P(|T| >= |t|) with df degrees of freedom."""
    if math.isinf(t):
        return 0.0
    # With t = sqrt(df) tan(x) the density is proportional to cos(x)^(df-1)
    # on (-pi/2, pi/2): smooth and bounded, so Gauss-Legendre is exact.
    nodes, weights = _legendre(100)
    start = math.atan(abs(t) / math.sqrt(df))
    stop = min(math.pi / 2, start + 12 / math.sqrt(df))  # the rest is nil
    x = start + (stop - start) * (nodes + 1) / 2
    tail = (stop - start) / 2 * float(weights @ np.cos(x) ** (df - 1))
    log_norm = math.lgamma((df + 1) / 2) - math.lgamma(df / 2)
    return min(1.0, 2 * tail * math.exp(log_norm) / math.sqrt(math.pi))


def t_quantile(level: float, df: float) -> float:
    """The t that |T| stays under with probability ``level``."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > 1 - level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if t_two_sided(middle, df) > 1 - level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
