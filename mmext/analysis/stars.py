# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The number of dimensions that star operations reach.

"Rewrite the Stars" (Ma et al., CVPR 2024), sections 3.1 and 3.2: one star
operation maps d inputs to about (d + 2)(d + 1) / 2 products, l operations in
a row to about (d / sqrt 2)^(2^l). The exact number is that of the monomials
up to degree 2^l in d variables; :func:`measured_dimensions` measures it as a
rank.
"""

from __future__ import annotations

import math

import torch

from mmext.evaluation.report.table import Table
from mmext.models.layers.star_operation import StarOperation


def implicit_dimensions(inputs: int, layers: int = 1) -> int:
    """Returns the exact number of monomials.

    Args:
        inputs: d, without the constant input of the bias.
        layers: l. Default: 1, which gives (d + 2)(d + 1) / 2.
    """
    degree = 2**layers
    return math.comb(inputs + degree, degree)


def measured_dimensions(
    inputs: int, layers: int = 1, operation: str = 'star', seed: int = 0
) -> int:
    """Measures the number as the rank of the outputs of random units.

    Random layers, wide enough not to limit the rank, are evaluated on random
    inputs. The rank of the matrix (inputs x units) is the dimension of the
    space of functions that the units span.

    Args:
        inputs: d.
        layers: l. Default: 1. Use values with ``implicit_dimensions(d, l)``
            below about 500.
        operation: ``'star'`` or ``'sum'``, without activation.
        seed: Seed of inputs and weights. Default: 0.
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


def dimension_table() -> Table:
    """Returns exact and measured numbers for some d and l."""
    rows = []
    for d, layers in ((2, 1), (8, 1), (24, 1), (2, 2), (4, 2), (2, 3)):
        numbers = (
            d,
            layers,
            implicit_dimensions(d, layers),
            measured_dimensions(d, layers),
            measured_dimensions(d, layers, 'sum'),
        )
        rows.append([str(number) for number in numbers])
    header = ('d', 'l', 'monomials', 'rank measured', 'sum, rank measured')
    title = 'Implicit dimensions of l star operations on d inputs'
    return Table(header, rows, title)
