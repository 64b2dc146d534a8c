# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Weights of images: how often a resample contains each of them."""

from __future__ import annotations

import numpy as np


def bootstrap_weights(
    num_images: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns (count, I) weights of images drawn with replacement."""
    share = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, share, count).astype(np.int32)


def jackknife_weights(
    num_images: int, groups: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns (J, I) weights, 0 for one group of images, 1 for the others.

    There are J = min(I, groups) random groups, whose sizes differ by at most
    one image.
    """
    count = min(num_images, groups)
    group = rng.permutation(num_images) % count
    return (group != np.arange(count)[:, None]).astype(np.int32)
