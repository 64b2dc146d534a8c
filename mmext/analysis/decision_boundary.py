# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Decision boundaries of star and sum networks and of kernel machines.

"Rewrite the Stars" (Ma et al., CVPR 2024), section 3.4.3 and Fig. 3, with the
settings of the official 2-D experiment. The paper compares pictures; here the
agreement of two classifiers is the share of the plane on which they decide
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmext.analysis.classification import mean_and_spread, sklearn
from mmext.evaluation.report.table import Table
from mmext.models.layers.star_operation import StarOperation
from mmext.utils.figures import COLORS, new_figure, save, shared_legend

NETWORKS = ('star', 'sum')
KERNELS = {
    'polynomial SVM': {'kernel': 'poly', 'degree': 4, 'coef0': 4},
    'RBF SVM': {'kernel': 'rbf', 'gamma': 4},
}
PLANE = (-2.0, 3.0, -2.0, 2.5)  # left, right, bottom, top

Classifier = Callable[[np.ndarray], np.ndarray]


class StarBlock(nn.Module):
    """LayerNorm, d -> 6d, ReLU(a) op b, 3d -> d, residual."""

    def __init__(self, width: int, operation: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.f = nn.Linear(width, 6 * width)
        self.star = StarOperation(operation, {'type': 'ReLU'})
        self.g = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.f(self.norm(x)).chunk(2, dim=-1)
        return x + self.g(self.star(a, b))


def star_mlp(operation: str, width: int = 100) -> nn.Module:
    """Builds the official 2-D DemoNet, (N, 2) points to (N, 2) scores."""
    blocks = [StarBlock(width, operation) for _ in range(4)]
    model = nn.Sequential(
        nn.Linear(2, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 2)
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return model


def train_network(
    points: np.ndarray, classes: np.ndarray, operation: str, seed: int = 0
) -> Classifier:
    """Trains ``'star'`` or ``'sum'`` in the official setting.

    30 epochs of SGD with a learning rate from 0.1 to 0.005 (cosine), momentum
    0.9, weight decay 2e-4, batches of 32, label smoothing 0.1, gradients
    clipped at 1. Points are (N, 2), and classes (N,) are 0 or 1.
    """
    epochs = 30
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = star_mlp(operation)
        x = torch.from_numpy(points).float()
        y = torch.from_numpy(classes).long()
        optimizer = torch.optim.SGD(
            model.parameters(), 0.1, momentum=0.9, weight_decay=2e-4
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, epochs, eta_min=0.005
        )
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for pick in order[: len(x) // 32 * 32].split(32):
                optimizer.zero_grad()
                loss(model(x[pick]), y[pick]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1)
                optimizer.step()
            schedule.step()

    @torch.no_grad()
    def classify(points: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(points).float()).argmax(1).numpy()

    return classify


@dataclass
class Boundaries:
    """The experiment of one seed.

    ``points`` (N, 2) and ``classes`` (N,) are the training data. For each
    classifier, ``regions`` has the class of each cell of the plane,
    (200, 200), and ``accuracy`` the accuracy on the training data.
    """

    points: np.ndarray
    classes: np.ndarray
    regions: dict[str, np.ndarray]
    accuracy: dict[str, float]

    def agreement(self, one: str, other: str) -> float:
        """Returns the share of the plane on which two classifiers agree."""
        return float((self.regions[one] == self.regions[other]).mean())


def experiment(seed: int = 0, data_seed: int = 0) -> Boundaries:
    """Trains both networks and both kernel machines on two moons.

    ``data_seed`` draws the points; 0 gives those of the paper.
    """
    points, classes = sklearn('datasets').make_moons(
        100, noise=0.4, random_state=data_seed
    )
    models = {
        name: train_network(points, classes, name, seed) for name in NETWORKS
    }
    for name, settings in KERNELS.items():
        machine = sklearn('svm').SVC(**settings).fit(points, classes)
        models[name] = machine.predict
    x, y = np.linspace(*PLANE[:2], 200), np.linspace(*PLANE[2:], 200)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    found = Boundaries(points, classes, {}, {})
    for name, classify in models.items():
        regions = classify(grid.reshape(-1, 2))
        found.regions[name] = regions.reshape(grid.shape[:2])
        found.accuracy[name] = float((classify(points) == classes).mean())
    return found


def agreement_table(runs: Sequence[Boundaries]) -> Table:
    """Returns accuracy and agreement, with mean and spread over seeds."""
    header = (
        'network',
        'training accuracy',
        'agrees with polynomial SVM',
        'with RBF SVM',
        'difference',
        'polynomial closer',
    )
    rows = []
    for name in NETWORKS:
        accuracy = np.array([r.accuracy[name] for r in runs])
        poly, rbf = (
            np.array([r.agreement(name, kernel) for r in runs])
            for kernel in KERNELS
        )
        columns = (accuracy, poly, rbf, poly - rbf)
        cells = [mean_and_spread(c, digits=3) for c in columns]
        closer = f'{(poly > rbf).sum()} of {len(runs)} seeds'
        rows.append((name, *cells, closer))
    return Table(header, rows)


def draw(run: Boundaries, path: str | Path) -> Path:
    """Draws the plane as each classifier divides it, with the points."""
    from matplotlib.colors import ListedColormap

    figure = new_figure(10.4, 3.3)
    order = ('star', 'polynomial SVM', 'sum', 'RBF SVM')
    axes = figure.subplots(1, 4)
    for ax, name in zip(axes, order, strict=True):
        region = run.regions[name]
        ax.imshow(
            region,
            extent=PLANE,
            origin='lower',
            cmap=ListedColormap(['#cfe3f1', '#fbdcc8']),
            aspect='auto',
        )
        if region.min() < region.max():
            ax.contour(
                region, [0.5], extent=PLANE, colors='#444444', linewidths=1
            )
        for label in (0, 1):
            ax.scatter(
                *run.points[run.classes == label].T,
                s=20,
                color=COLORS[label],
                edgecolor='white',
                linewidth=0.4,
                label=f'training points of class {label + 1}',
            )
        ax.set(xticks=[], yticks=[])
        accuracy = f'training accuracy {run.accuracy[name]:.2f}'
        if name in NETWORKS:
            poly, rbf = (run.agreement(name, k) for k in KERNELS)
            agrees = f'agrees: poly {poly:.2f}, RBF {rbf:.2f}'
            title = f'{name} network\n{accuracy}\n{agrees}'
        else:
            title = f'{name}\n{accuracy}\n'
        ax.set_title(title, fontsize=9)
    shared_legend(figure, axes, 'lower')
    return save(figure, path)
