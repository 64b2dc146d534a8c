# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Star against sum, with and without activation, on a small data set.

The experiment of "Rewrite the Stars" (CVPR 2024), Table 4, scaled down: a
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

from mmext.errors import UserError

from .classification import Classifier, Digits, accuracy, train_classifier

#: DemoNet depth 12, width 192 on ImageNet-1k, top-1 (the paper's Table 4).
PUBLISHED = {
    ('sum', True): 66.2,
    ('sum', False): 32.4,
    ('star', True): 71.7,
    ('star', False): 70.5,
}
NEEDED = ('backbone', 'train_images', 'epochs', 'batch_size', 'lr', 'seeds')

Results = dict[tuple[str, bool], list[float]]


def run_experiment(
    cfg: Config, tell: Callable[[str], None] = lambda line: None
) -> Results:
    """Trains every combination of operation and activation from each seed.

    Args:
        cfg: As ``configs/theory/demonet_star-vs-sum_digits.py``.
        tell: Called with a line a training run.

    Returns:
        Test accuracy in per cent, one a seed, by (operation, activation).

    Raises:
        UserError: Where the config lacks a setting.
    """
    missing = [key for key in NEEDED if key not in cfg]
    if missing:
        raise UserError(
            f'{cfg.filename or "the config"} lacks {", ".join(missing)}.',
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
        model.init_weights()
        train_classifier(
            model, train, cfg.epochs, cfg.batch_size, cfg.lr, seed=seed
        )
        value = 100 * accuracy(model, test)
        results[operation, active].append(value)
        tell(f'seed {seed}, {_words(operation, active)}: {value:.2f} %')
    return results


def result_table(results: Results) -> str:
    """Markdown: measured here, beside what the paper reports."""
    lines = [
        '| block | digits, measured (%) | ImageNet-1k, published (%) |',
        '|---|---|---|',
    ]
    for key, published in PUBLISHED.items():
        values = np.array(results[key])
        lines.append(
            f'| {_words(*key)} | {values.mean():.2f} ± {values.std():.2f} '
            f'| {published} |'
        )
    for name, one, other in (
        ('star - sum', ('star', True), ('sum', True)),
        ('cost of no activation, sum', ('sum', True), ('sum', False)),
        ('cost of no activation, star', ('star', True), ('star', False)),
    ):
        differences = np.subtract(results[one], results[other])
        lines.append(
            f'| {name} | {differences.mean():+.2f} ± {differences.std():.2f} '
            f'| {PUBLISHED[one] - PUBLISHED[other]:+.1f} |'
        )
    return '\n'.join(lines)


def _words(operation: str, active: bool) -> str:
    return f'{operation}, {"activation" if active else "no activation"}'
