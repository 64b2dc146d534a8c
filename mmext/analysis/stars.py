# Licensed under the Apache License, Version 2.0. See LICENSE.
"""How many dimensions the star operation reaches.

"Rewrite the Stars" (Ma et al., CVPR 2024), section 3.1 and 3.2: one star
operation maps d inputs to about (d + 2)(d + 1) / 2 products, l of them in a
row to about (d / sqrt 2)^(2^l). The exact number is that of the monomials up
to degree 2^l in d variables, which :func:`measured_dimensions` finds again as
a rank.
"""

from __future__ import annotations

import math

import torch

from mmext.models.layers.star_operation import StarOperation


def implicit_dimensions(inputs: int, layers: int = 1) -> int:
    """Monomials that ``layers`` star operations reach, exactly.

    Args:
        inputs: d, without the constant input that carries the bias.
        layers: l. Default: 1, which gives (d + 2)(d + 1) / 2.
    """
    degree = 2**layers
    return math.comb(inputs + degree, degree)


def measured_dimensions(
    inputs: int, layers: int = 1, operation: str = 'star', seed: int = 0
) -> int:
    """The same number by experiment: rank of random units' outputs.

    Random layers, wide enough not to be the bottleneck, are evaluated on
    random inputs; the rank of (inputs x units) is the dimension of the
    space of functions they span.

    Args:
        inputs: d.
        layers: l; keep ``implicit_dimensions(d, l)`` below about 500.
        operation: ``'star'`` or ``'sum'``, without activation.
        seed: Of inputs and weights.
    """
    generator = torch.Generator().manual_seed(seed)
    join = StarOperation(operation)
    width = implicit_dimensions(inputs, layers) + 8

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = random(2 * width, inputs)
    for _ in range(layers):
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        a, b = (x @ random(x.shape[1], width) for _ in range(2))
        x = join(a, b)
        x = x / x.std()
    return int(torch.linalg.matrix_rank(x, rtol=1e-11))
