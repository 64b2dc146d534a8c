# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two experiments of "Rewrite the Stars" (Ma et al., CVPR 2024).

Sections 3.1 and 3.2: one star operation maps d inputs to about
(d + 2)(d + 1) / 2 products, l operations in a row to about (d / sqrt 2)^(2^l).
The exact number is that of the monomials up to degree 2^l in d variables;
:func:`measured_dimensions` measures it as a rank.

Table 4, at small scale: :func:`run_experiment` trains a DemoNet with star or
sum, with or without activation, on scikit-learn's digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from mmengine.config import Config

from mmext.analysis.classification import (
    Classifier,
    Digits,
    accuracy,
    mean_and_spread,
    train_classifier,
)
from mmext.errors import UserError
from mmext.evaluation.report.table import Table
from mmext.models.layers.star_operation import StarOperation

#: (operation, activation) -> top-1 accuracy in per cent of a DemoNet of depth
#: 12 and width 192 on ImageNet-1k (Table 4 of the paper).
PUBLISHED = {
    ('sum', True): 66.2,
    ('sum', False): 32.4,
    ('star', True): 71.7,
    ('star', False): 70.5,
}
NEEDED = ('backbone', 'train_images', 'epochs', 'batch_size', 'lr', 'seeds')

Results = dict[tuple[str, bool], list[float]]


def implicit_dimensions(inputs: int, layers: int = 1) -> int:
    """Returns the exact number of monomials.

    ``inputs`` is d, without the constant input of the bias, and ``layers`` l.
    """
    degree = 2**layers
    return math.comb(inputs + degree, degree)


def measured_dimensions(
    inputs: int, layers: int = 1, operation: str = 'star'
) -> int:
    """Measures the number as the rank of the outputs of random units.

    Random layers, wide enough not to limit the rank, are evaluated on random
    inputs. The rank of the matrix (inputs x units) is the dimension of the
    space of functions that the units span. The number should be below 500.
    """
    generator = torch.Generator().manual_seed(0)
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


def run_experiment(
    cfg: Config, log: Callable[[str], None] = lambda line: None
) -> Results:
    """Trains each combination of operation and activation from each seed.

    ``cfg`` is one such as ``configs/theory/demonet_star-vs-sum_digits.py``,
    and ``log`` gets one line per training run. Returns test accuracies in per
    cent, one per seed, by (operation, activation).
    """
    missing = [key for key in NEEDED if key not in cfg]
    if missing:
        raise UserError(
            f'{cfg.filename or "the config"} has no {", ".join(missing)}.',
            'Start from configs/theory/demonet_star-vs-sum_digits.py.',
        )
    results: Results = {key: [] for key in PUBLISHED}
    for seed, (operation, active) in itertools.product(cfg.seeds, PUBLISHED):
        train, test = Digits.split(cfg.train_images, seed)
        backbone = {**cfg.backbone, 'operation': operation}
        if not active:
            backbone['act_cfg'] = None
        model = Classifier(backbone, backbone['embed_dims'], seed)
        train_classifier(model, train, cfg, seed)
        value = 100 * accuracy(model, test)
        results[operation, active].append(value)
        log(f'seed {seed}, {_words(operation, active)}: {value:.2f} %')
    return results


def result_table(results: Results) -> Table:
    """Returns the measured accuracies beside the published ones."""
    rows = [
        (_words(*key), mean_and_spread(results[key]), f'{published}')
        for key, published in PUBLISHED.items()
    ]
    for name, one, other in (
        ('star - sum', ('star', True), ('sum', True)),
        ('cost of no activation, sum', ('sum', True), ('sum', False)),
        ('cost of no activation, star', ('star', True), ('star', False)),
    ):
        differences = np.subtract(results[one], results[other])
        published = PUBLISHED[one] - PUBLISHED[other]
        rows.append(
            (name, mean_and_spread(differences, sign='+'), f'{published:+.1f}')
        )
    header = ('block', 'digits, measured (%)', 'ImageNet-1k, published (%)')
    return Table(header, rows)


def _words(operation: str, active: bool) -> str:
    return f'{operation}, {"activation" if active else "no activation"}'
