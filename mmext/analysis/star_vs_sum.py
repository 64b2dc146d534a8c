# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Star against sum, with and without activation, on a small data set.

The experiment of "Rewrite the Stars" (CVPR 2024), Table 4, at small scale: a
DemoNet for each of the four combinations, trained from the same seeds on
scikit-learn's digits.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import torch
from mmengine.config import Config

from mmext.analysis.classification import (
    Classifier,
    Digits,
    accuracy,
    train_classifier,
)
from mmext.analysis.loading import quiet
from mmext.errors import UserError
from mmext.evaluation.report.table import Table

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


def run_experiment(
    cfg: Config, log: Callable[[str], None] = lambda line: None
) -> Results:
    """Trains each combination of operation and activation from each seed.

    Args:
        cfg: Such as ``configs/theory/demonet_star-vs-sum_digits.py``.
        log: Called with one line per training run. Default: nothing.

    Returns:
        Test accuracies in per cent, one per seed, by (operation, activation).

    Raises:
        UserError: The config misses a setting.
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
        backbone = copy.deepcopy(cfg.backbone)
        backbone['operation'] = operation
        if not active:
            backbone['act_cfg'] = None
        torch.manual_seed(seed)
        model = Classifier(backbone, backbone['embed_dims'])
        with quiet():
            model.init_weights()
        train_classifier(
            model, train, cfg.epochs, cfg.batch_size, cfg.lr, seed=seed
        )
        value = 100 * accuracy(model, test)
        results[operation, active].append(value)
        log(f'seed {seed}, {_words(operation, active)}: {value:.2f} %')
    return results


def result_table(results: Results) -> Table:
    """Returns the measured accuracies beside the published ones."""
    rows = [
        (_words(*key), _mean_sd(results[key]), f'{published}')
        for key, published in PUBLISHED.items()
    ]
    for name, one, other in (
        ('star - sum', ('star', True), ('sum', True)),
        ('cost of no activation, sum', ('sum', True), ('sum', False)),
        ('cost of no activation, star', ('star', True), ('star', False)),
    ):
        differences = np.subtract(results[one], results[other])
        published = PUBLISHED[one] - PUBLISHED[other]
        rows.append((name, _mean_sd(differences, '+'), f'{published:+.1f}'))
    header = ('block', 'digits, measured (%)', 'ImageNet-1k, published (%)')
    return Table(header, rows)


def _mean_sd(values: list[float] | np.ndarray, sign: str = '') -> str:
    return f'{np.mean(values):{sign}.2f} ± {np.std(values):.2f}'


def _words(operation: str, active: bool) -> str:
    return f'{operation}, {"activation" if active else "no activation"}'
