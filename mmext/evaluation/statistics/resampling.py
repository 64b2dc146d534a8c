# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which images a resample holds, and how often."""

from __future__ import annotations

import numpy as np


def bootstrap_weights(
    num_images: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, I): multiplicities of images drawn with replacement."""
    share = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, share, count).astype(np.int32)


def jackknife_weights(
    num_images: int, groups: int, rng: np.random.Generator
) -> np.ndarray:
    """(J, I): all images but one group, J = min(I, groups).

    Groups are random and equally large to within one image.
    """
    count = min(num_images, groups)
    group = rng.permutation(num_images) % count
    return (group != np.arange(count)[:, None]).astype(np.int32)
