# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tables and figures of stiffness, several models side by side.

Figures follow those of "Understanding Self-attention Mechanism via Dynamical
System Perspective" (ICCV 2023): NSI along depth (its Fig. 3), delta and the
stiff ratio over the thresholds (Figs. 2 and 6), TNS against accuracy
(Fig. 7).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .figures import COLORS, new_figure, save, tidy
from .rank_correlation import Correlation
from .stiffness import Trajectories, stiffness_surface

Models = Mapping[str, Trajectories]

BLOCK_COLUMNS = (
    'model',
    'stage',
    'block',
    'nsi_mean',
    'nsi_p10',
    'nsi_p90',
    'step_mean',
    'step_std',
)
MODEL_COLUMNS = (
    'model',
    'images',
    'images_left_out',
    'blocks',
    'tns',
    'tns_standard_error',
    'nsi_mean',
    'nsi_max',
    'stiff_ratio_at_m1_1',
)


def write_tables(models: Models, out_dir: Path) -> list[Path]:
    """``stiffness_blocks.csv`` and ``stiffness_models.csv``.

    A cell without a value (no attention in a block, the index of a stage's
    first block) is empty.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [
        out_dir / 'stiffness_blocks.csv',
        out_dir / 'stiffness_models.csv',
    ]
    tables = [
        (BLOCK_COLUMNS, [r for m in models.items() for r in _block_rows(*m)]),
        (MODEL_COLUMNS, [model_row(*m) for m in models.items()]),
    ]
    for path, (columns, rows) in zip(paths, tables, strict=True):
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    return paths


def model_row(name: str, found: Trajectories) -> dict:
    """One model's line of ``stiffness_models.csv``."""
    _, ratio = stiffness_surface(found.nsi, np.ones(1), np.zeros(1))
    return {
        'model': name,
        'images': len(found.nsi),
        'images_left_out': len(found.left_out),
        'blocks': len(found.blocks),
        'tns': _digits(found.tns),
        'tns_standard_error': _digits(found.tns_error),
        'nsi_mean': _digits(found.nsi.mean()),
        'nsi_max': _digits(found.nsi.max()),
        'stiff_ratio_at_m1_1': _digits(ratio[0, 0]),
    }


def _block_rows(name: str, found: Trajectories) -> list[dict]:
    column = {block: i for i, block in enumerate(found.blocks)}
    rows = []
    for stage in found.stages:
        for block in stage.blocks:
            row = dict.fromkeys(BLOCK_COLUMNS, '')
            row.update(model=name, stage=stage.name, block=block)
            if block in column:
                nsi = found.nsi[:, column[block]]
                row['nsi_mean'] = _digits(nsi.mean())
                low, high = np.percentile(nsi, [10, 90])
                row['nsi_p10'], row['nsi_p90'] = _digits(low), _digits(high)
            steps = _known(found.steps.get(block))
            if len(steps):
                row['step_mean'] = _digits(steps.mean())
                row['step_std'] = _digits(steps.std())
            rows.append(row)
    return rows


def draw_trajectories(models: Models, path: Path) -> Path:
    """NSI along the blocks of each stage, with the band of 80 % of images."""
    depth = max(len(found.stages) for found in models.values())
    widths = [
        max(
            len(f.stages[i].blocks) if i < len(f.stages) else 1
            for f in models.values()
        )
        for i in range(depth)
    ]
    figure = new_figure(max(6.4, 2.6 * depth), 3.4)
    axes = figure.subplots(
        1,
        depth,
        sharey=True,
        squeeze=False,
        width_ratios=[max(2, w - 1) for w in widths],
    )[0]
    for color, (name, found) in zip(
        _colors(models), models.items(), strict=True
    ):
        column = {block: i for i, block in enumerate(found.blocks)}
        for ax, stage in zip(axes, found.stages, strict=False):
            numbers = [i for i, b in enumerate(stage.blocks) if b in column]
            if not numbers:
                continue
            nsi = found.nsi[:, [column[stage.blocks[i]] for i in numbers]]
            low, high = np.percentile(nsi, [10, 90], axis=0)
            x = [i + 1 for i in numbers]
            ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
            ax.plot(
                x,
                nsi.mean(0),
                color=color,
                marker='o',
                markersize=4,
                label=f'{name} (TNS {found.tns:.3g})',
            )
    for i, (ax, width) in enumerate(zip(axes, widths, strict=True)):
        tidy(ax)
        ax.set_title(f'stage {i + 1}', fontsize=10)
        ax.set_xticks(range(2, width + 1, max(1, width // 8)))
        ax.set_xlim(1.6, max(2, width) + 0.4)
        ax.set_xlabel('block')
    axes[0].set_ylabel('NSI')
    handles, labels = max(
        (ax.get_legend_handles_labels() for ax in axes),
        key=lambda found: len(found[0]),
    )
    figure.legend(
        handles, labels, loc='outside upper center', ncols=3, frameon=False
    )
    return save(figure, path)


def draw_surfaces(models: Models, path: Path, points: int = 61) -> Path:
    """delta(M) above and the stiff ratio below, over (M1, M2)."""
    nsi = [found.nsi for found in models.values()]
    m1 = np.linspace(
        0,
        max((n.max(1) / _positive(n.mean(1))).max() for n in nsi) - 1,
        points,
    )
    m2 = np.linspace(0, max(n.max() for n in nsi), points)
    figure = new_figure(max(6.4, 2.9 * len(models) + 0.8), 5.4)
    axes = figure.subplots(
        2, len(models), sharex=True, sharey=True, squeeze=False
    )
    for column, (name, found) in zip(axes.T, models.items(), strict=True):
        surfaces = stiffness_surface(found.nsi, m1, m2)
        labels = ('delta(M)', 'stiff ratio p(M)')
        limits = (1.0, 0.5)
        for ax, surface, label, limit in zip(
            column, surfaces, labels, limits, strict=True
        ):
            image = ax.pcolormesh(
                m1, m2, surface.T, vmin=0, vmax=limit, cmap='viridis'
            )
            if ax in axes[:, -1]:
                extend = 'max' if limit < 1 else 'neither'
                figure.colorbar(image, ax=ax, label=label, extend=extend)
        column[0].set_title(f'{name}: TNS {found.tns:.3g}', fontsize=10)
        column[1].set_xlabel('M1 (relative)')
    for ax in axes[:, 0]:
        ax.set_ylabel('M2 (absolute)')
    return save(figure, path)


def draw_steps(models: Models, path: Path) -> Path | None:
    """Distribution of the step sizes of each block with attention.

    Returns:
        The path; None where no model has attention in its blocks.
    """
    with_steps = {n: f for n, f in models.items() if f.steps}
    if not with_steps:
        return None
    figure = new_figure(
        max(6.4, 0.34 * max(len(f.steps) for f in with_steps.values()) + 1.5),
        2.6 * len(with_steps),
    )
    axes = figure.subplots(len(with_steps), 1, squeeze=False)[:, 0]
    colors = dict(zip(models, _colors(models), strict=True))
    for ax, (name, found) in zip(axes, with_steps.items(), strict=True):
        values = [_known(steps) for steps in found.steps.values()]
        labels = [_short(block) for block in found.steps]
        filled = [(i, v) for i, v in enumerate(values) if len(v)]
        parts = ax.violinplot(
            [v for _, v in filled],
            positions=[i for i, _ in filled],
            widths=0.85,
            showextrema=False,
        )
        for body in parts['bodies']:
            body.set(facecolor=colors[name], alpha=0.35, linewidth=0)
        ax.scatter(
            [i for i, _ in filled],
            [v.mean() for _, v in filled],
            color=colors[name],
            s=14,
            zorder=3,
        )
        ax.axhline(1, color='black', lw=0.8, ls=':')
        tidy(ax)
        ax.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
        ax.set_ylabel('step size')
        ax.set_title(f'{name} (dots: means; dotted: no attention)', fontsize=9)
    return save(figure, path)


def draw_correlation(
    tns: Mapping[str, float],
    scores: Mapping[str, float],
    tau: Correlation,
    rho: Correlation,
    path: Path,
    label: str = 'AP',
) -> Path:
    """Scatter of a score against TNS, one point a model.

    Args:
        tns: By model.
        scores: By model, for the same models.
        tau: Their rank correlation, for the title.
        rho: The other one.
        path: PNG to write.
        label: What the score is. Default: 'AP'.
    """
    figure = new_figure(6.6, 3.8)
    ax = figure.subplots()
    tidy(ax)
    for i, (color, name) in enumerate(zip(_colors(tns), tns, strict=True)):
        ax.scatter(
            tns[name],
            scores[name],
            color=color,
            marker='os^Dv'[i // len(COLORS) % 5],
            label=name,
            zorder=3,
        )
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
    ax.margins(0.1)
    ax.set_xlabel('total neural stiffness (TNS)')
    ax.set_ylabel(label)
    ax.set_title(f"Kendall's tau {tau}\nSpearman's rho {rho}", fontsize=9)
    return save(figure, path)


def _colors(models: Mapping) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(len(models))]


def _positive(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 1)


def _known(steps: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if steps is None else steps[np.isfinite(steps)]


def _digits(value: float) -> str:
    return f'{value:.6g}'


def _short(block: str) -> str:
    return block.replace('layer', '').replace('stages.', '')
