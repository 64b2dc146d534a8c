# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What an orthogonality term does to a network trained from scratch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config

from mmext.regularizers import OrthogonalityHook

from .classification import Classifier, Digits, accuracy, train_classifier
from .filter_angles import Angles, model_angles


@dataclass(frozen=True)
class Outcome:
    """One training run.

    Attributes:
        accuracy: On the test images, in per cent.
        angles: Of the regularised layers, after training.
    """

    accuracy: float
    angles: dict[str, Angles]

    @property
    def pooled(self) -> np.ndarray:
        """The angles of all layers in one array, in degrees."""
        return np.concatenate([a.degrees for a in self.angles.values()])


def run_experiment(
    cfg: Config, tell: Callable[[str], None] = lambda line: None
) -> dict[str, list[Outcome]]:
    """Trains the network plain and with each term, from each seed.

    Args:
        cfg: As ``configs/theory/orthogonality_resnet_digits.py``.
        tell: Called with a line a training run.

    Returns:
        By name of the term, ``initial`` and ``none`` first, one
        outcome a seed.
    """
    terms = {'none': None, **cfg.terms}
    results: dict[str, list[Outcome]] = {n: [] for n in ('initial', *terms)}
    for seed in cfg.seeds:
        train, test = Digits.split(cfg.train_images, seed, cfg.scale)
        for name, term in terms.items():
            torch.manual_seed(seed)
            model = Classifier(copy.deepcopy(cfg.backbone), cfg.channels)
            model.init_weights()
            if term is None:
                results['initial'].append(
                    Outcome(0.0, model_angles(model, cfg.layers))
                )
            train_classifier(
                model,
                train,
                cfg.epochs,
                cfg.batch_size,
                cfg.lr,
                seed=seed,
                around_step=term and _hooked(model, cfg.layers, term),
            )
            outcome = Outcome(
                100 * accuracy(model, test), model_angles(model, cfg.layers)
            )
            results[name].append(outcome)
            tell(
                f'seed {seed}, {name}: accuracy {outcome.accuracy:.2f} %, '
                f'angles {outcome.pooled.mean():.2f} '
                f'± {outcome.pooled.std():.2f} degrees'
            )
    return results


def _hooked(
    model: Classifier, layers: str, term: dict
) -> Callable[[int, Callable[[], None]], None]:
    """Puts the hook around each step, as a runner does."""
    hook = OrthogonalityHook(layers=layers, **copy.deepcopy(term))
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    hook.before_train(runner)

    def around(number: int, step: Callable[[], None]) -> None:
        runner.iter = number
        hook.before_train_iter(runner, number)
        step()
        hook.after_train_iter(runner, number)

    return around


def outcome_table(results: dict[str, list[Outcome]]) -> str:
    """Markdown: angles and accuracy, mean and spread over seeds."""
    lines = [
        '| term | mean angle (°) | spread (°) | max cos | accuracy (%) |',
        '|---|---|---|---|---|',
    ]
    for name, outcomes in results.items():
        values = np.array(
            [
                (
                    o.pooled.mean(),
                    o.pooled.std(),
                    max(a.coherence for a in o.angles.values()),
                    o.accuracy,
                )
                for o in outcomes
            ]
        )
        cells = [
            f'{mean:.{digits}f} ± {std:.{digits}f}'
            for mean, std, digits in zip(
                values.mean(0), values.std(0), (2, 2, 3, 2), strict=True
            )
        ]
        if name == 'initial':
            cells[-1] = ''
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)
