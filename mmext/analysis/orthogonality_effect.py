# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The effect of orthogonality terms on a network trained from scratch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config

from mmext.analysis.classification import (
    Classifier,
    Digits,
    accuracy,
    mean_and_spread,
    train_classifier,
)
from mmext.analysis.filter_angles import Angles, model_angles
from mmext.evaluation.report.table import Table
from mmext.regularizers import OrthogonalityHook


@dataclass(frozen=True)
class Outcome:
    """Accuracy in per cent, and angles of the regularised layers, of a run."""

    accuracy: float
    angles: dict[str, Angles]

    @property
    def pooled(self) -> np.ndarray:
        """The angles of all layers in degrees."""
        return np.concatenate([a.degrees for a in self.angles.values()])

    @property
    def coherence(self) -> float:
        """The largest ``|cos|`` of all layers."""
        return max(a.coherence for a in self.angles.values())


def run_experiment(
    cfg: Config, log: Callable[[str], None] = lambda line: None
) -> dict[str, list[Outcome]]:
    """Trains the network without and with each term, from each seed.

    ``cfg`` is one such as ``configs/theory/orthogonality_resnet_digits.py``,
    and ``log`` gets one line per training run. Returns outcomes, one per seed,
    by term; ``initial`` and ``none`` are first.
    """
    terms = {'none': None, **cfg.terms}
    results: dict[str, list[Outcome]] = {n: [] for n in ('initial', *terms)}
    for seed in cfg.seeds:
        train, test = Digits.split(cfg.train_images, seed, cfg.scale)
        for name, term in terms.items():
            model = Classifier(cfg.backbone, cfg.channels, seed)
            if term is None:
                hook, angles = None, model_angles(model, cfg.layers)
                results['initial'].append(Outcome(0.0, angles))
            else:
                hook = OrthogonalityHook(layers=cfg.layers, **deepcopy(term))
            train_classifier(model, train, cfg, seed, hook)
            outcome = Outcome(
                100 * accuracy(model, test), model_angles(model, cfg.layers)
            )
            results[name].append(outcome)
            log(
                f'seed {seed}, {name}: accuracy {outcome.accuracy:.2f} %, '
                f'angles {outcome.pooled.mean():.2f} '
                f'± {outcome.pooled.std():.2f} degrees'
            )
    return results


def outcome_table(results: dict[str, list[Outcome]]) -> Table:
    """Returns mean and spread over seeds of the angles and the accuracy."""
    columns: dict[str, tuple[Callable[[Outcome], float], int]] = {
        'mean angle (°)': (lambda o: o.pooled.mean(), 2),
        'spread (°)': (lambda o: o.pooled.std(), 2),
        'max cos': (lambda o: o.coherence, 3),
        'accuracy (%)': (lambda o: o.accuracy, 2),
    }
    rows = []
    for name, outcomes in results.items():
        row = [name]
        for measure, digits in columns.values():
            values = [measure(outcome) for outcome in outcomes]
            row.append(mean_and_spread(values, digits))
        if name == 'initial':
            row[-1] = ''
        rows.append(row)
    return Table(('term', *columns), rows)
