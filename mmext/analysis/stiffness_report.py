# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tables and figures of the stiffness of several models.

The figures follow those of "Understanding Self-attention Mechanism via
Dynamical System Perspective" (ICCV 2023): NSI along depth (Fig. 3), delta and
the stiff ratio over the thresholds (Figs. 2 and 6), TNS against accuracy
(Fig. 7).
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy.stats import ConstantInputWarning, kendalltau, spearmanr

from mmext.analysis.loading import image_inputs, load_model
from mmext.analysis.stiffness import Trajectories, measure, stiffness_surface
from mmext.errors import UserError
from mmext.evaluation.runs import other_metrics, read_run
from mmext.utils.figures import (
    color,
    marker,
    new_figure,
    save,
    shared_legend,
    tidy,
    wrap,
)
from mmext.utils.images import find_images
from mmext.utils.text import some

#: Key of a score in a run -> the metric's name.
METRICS = {'bbox': 'AP', 'accuracy/top1': 'top-1', 'mIoU': 'mIoU'}
#: Name of a model -> its measurements.
Models = Mapping[str, Trajectories]


def measure_models(
    models: Sequence[tuple[str, str]],
    images: Sequence[str | Path],
    names: Sequence[str] | None = None,
    limit: int = 50,
    device: str = 'cpu',
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Trajectories]:
    """Measures the stiffness of the backbones of pairs (config, checkpoint).

    ``images`` are files or folders, of which ``limit`` images at most are
    used, evenly spaced. The default ``names`` are those of the configs.
    ``log`` gets one line per model.
    """
    names = list(names or [Path(config).stem for config, _ in models])
    if len(set(names)) < len(names):
        names = [f'{name} {i + 1}' for i, name in enumerate(names)]
    files = find_images(images, limit)
    found = {}
    for name, (config, checkpoint) in zip(names, models, strict=True):
        cfg, model = load_model(config, checkpoint, device)
        found[name] = measure(model.backbone, image_inputs(cfg, model, files))
        row = model_row(name, found[name])
        log(', '.join(f'{k} {v}' for k, v in row.items()))
        if left_out := [str(files[i]) for i in found[name].left_out]:
            log(f'not finite and left out: {", ".join(left_out)}')
    return found


def write_report(
    models: Models,
    out_dir: str | Path,
    scores: Sequence[float] | None = None,
    metric: str = 'AP',
) -> list[Path]:
    """Writes tables and figures, with the correlation if there are scores.

    ``metric`` is the name of the scores.
    """
    out = Path(out_dir)
    written = write_tables(models, out)
    written.append(draw_trajectories(models, out / 'trajectories.png'))
    written.append(draw_surfaces(models, out / 'surfaces.png'))
    if any(found.steps for found in models.values()):
        written.append(draw_steps(models, out / 'steps.png'))
    if scores is not None:
        file = out / 'correlation.png'
        written.append(draw_correlation(models, scores, file, metric))
    return written


def recorded_scores(
    checkpoints: Sequence[str | Path],
) -> tuple[str, list[float]]:
    """Returns a metric and its values, 0 to 100, of checkpoints' runs.

    The metric is the first of box AP, top-1 and mIoU that all runs have.

    Raises:
        UserError: There is no such metric.
    """
    found = [_logged_scores(Path(c).parent) for c in checkpoints]
    for metric in METRICS.values():
        if all(metric in scores for scores in found):
            return metric, [scores[metric] for scores in found]
    have = '; '.join(
        f'{checkpoint}: {some(scores) or "none"}'
        for checkpoint, scores in zip(checkpoints, found, strict=True)
    )
    raise UserError(
        f'The runs of the checkpoints have no common metric of '
        f'{", ".join(METRICS.values())} ({have}).',
        'Give the numbers with --ap, one per model.',
    )


def _logged_scores(folder: Path) -> dict[str, float]:
    run = read_run(folder)
    scores = other_metrics(run.val_log[-1]) if run.val_log else {}
    if 'AP' in run.metrics.get('bbox', {}):
        scores['bbox'] = 100 * run.metrics['bbox']['AP']
    return {METRICS[key]: scores[key] for key in METRICS if key in scores}


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and its 95 % bootstrap interval over the models."""

    value: float
    interval: tuple[float, float] | None  # None for fewer than four models

    def __str__(self) -> str:
        if self.interval is None:
            return f'{self.value:+.2f} (no interval: fewer than 4 models)'
        low, high = self.interval
        return f'{self.value:+.2f} [{low:+.2f}, {high:+.2f}]'


def correlate(
    x: Sequence[float], y: Sequence[float], resamples: int = 2000
) -> tuple[Correlation, Correlation]:
    """Returns Kendall's tau and Spearman's rho of two scores of models."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x).all() and np.isfinite(y).all()
    if not known or len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        raise UserError(
            f'A rank correlation needs two models with different scores; '
            f'got {x.tolist()} and {y.tolist()}.'
        )
    size = (resamples, len(x))
    picks = np.random.default_rng(0).integers(0, len(x), size)
    found = []
    for statistic in (kendalltau, spearmanr):
        interval = None
        if len(x) >= 4:
            with warnings.catch_warnings():
                # A resample of equal scores gives NaN, which is left out.
                warnings.simplefilter('ignore', ConstantInputWarning)
                drawn = [statistic(x[p], y[p])[0] for p in picks]
            interval = tuple(np.nanpercentile(drawn, [2.5, 97.5]).tolist())
        found.append(Correlation(float(statistic(x, y)[0]), interval))
    return tuple(found)


def write_tables(models: Models, out_dir: Path) -> list[Path]:
    """Writes ``stiffness_blocks.csv`` and ``stiffness_models.csv``.

    A cell without a value is empty: the step of a block without attention,
    and the NSI of the first block of a stage.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    tables = {
        'stiffness_blocks.csv': [
            row for m in models.items() for row in _block_rows(*m)
        ],
        'stiffness_models.csv': [model_row(*m) for m in models.items()],
    }
    for name, rows in tables.items():
        with (out_dir / name).open('w', newline='') as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return [out_dir / name for name in tables]


def model_row(name: str, found: Trajectories) -> dict[str, str | int]:
    """Returns a row of ``stiffness_models.csv``."""
    _, ratio = stiffness_surface(found.nsi, np.ones(1), np.zeros(1))
    return {
        'model': name,
        'images': len(found.nsi),
        'images_left_out': len(found.left_out),
        'blocks': len(found.blocks),
        'tns': f'{found.tns:.6g}',
        'tns_standard_error': f'{found.tns_error:.6g}',
        'nsi_mean': f'{found.nsi.mean():.6g}',
        'nsi_max': f'{found.nsi.max():.6g}',
        'stiff_ratio_at_m1_1': f'{ratio[0, 0]:.6g}',
    }


def _block_rows(name: str, found: Trajectories) -> list[dict[str, str]]:
    rows = []
    for stage in found.stages:
        for block in stage.blocks:
            nsi = found.of_block(block)
            steps = found.steps.get(block, np.empty(0))
            steps = steps[np.isfinite(steps)]
            rows.append(
                {
                    'model': name,
                    'stage': stage.name,
                    'block': block,
                    'nsi_mean': _cell(np.mean, nsi),
                    'nsi_p10': _cell(np.percentile, nsi, 10),
                    'nsi_p90': _cell(np.percentile, nsi, 90),
                    'step_mean': _cell(np.mean, steps),
                    'step_std': _cell(np.std, steps),
                }
            )
    return rows


def draw_trajectories(models: Models, path: Path) -> Path:
    """Draws NSI along the blocks, with a band that holds 80 % of images."""
    counts = [[len(s.blocks) for s in f.stages] for f in models.values()]
    longest = [max(blocks) for blocks in zip_longest(*counts, fillvalue=1)]
    # A stage of one block has no index.
    widths = {i: w for i, w in enumerate(longest) if w > 1}
    figure = new_figure(max(6.4, 2.6 * len(widths)), 3.4)
    axes = figure.subplots(
        1,
        len(widths),
        sharey=True,
        squeeze=False,
        width_ratios=[max(2, w - 1) for w in widths.values()],
    )[0]
    panels = dict(zip(widths, axes, strict=True))
    for number, (name, found) in enumerate(models.items()):
        line = {
            'color': color(number),
            'marker': marker(number),
            'markersize': 4,
        }
        # A model may have no line in the first panel, but in the legend.
        label = f'{name} (TNS {found.tns:.3g})'
        axes[0].plot([], [], **line, label=label)
        for i, stage in enumerate(found.stages):
            if len(stage.blocks) == 1:
                continue
            ax = panels[i]
            nsi = np.stack([found.of_block(b) for b in stage.blocks[1:]])
            low, high = np.percentile(nsi, [10, 90], axis=1)
            x = range(2, len(stage.blocks) + 1)
            ax.fill_between(x, low, high, color=color(number), alpha=0.2, lw=0)
            ax.plot(x, nsi.mean(1), **line)
    for i, width in widths.items():
        ax = panels[i]
        tidy(ax)
        ax.set_title(f'stage {i + 1}', fontsize=10)
        ax.set_xticks(range(2, width + 1, max(1, width // 8)))
        ax.set(xlim=(1.6, width + 0.4), xlabel='block')
    axes[0].set_ylabel('NSI (band: 80 % of images)')
    shared_legend(figure, axes, 'upper')
    return save(figure, path)


def draw_surfaces(models: Models, path: Path) -> Path:
    """Draws delta(M) above the stiff ratio, over (M1, M2)."""
    nsi = [found.nsi for found in models.values()]
    # The ratio of an image that does not move is 0.
    highest = max(
        (n.max(1) / np.where(n.mean(1) > 0, n.mean(1), 1)).max() for n in nsi
    )
    m1 = np.linspace(0, highest - 1, 61)
    m2 = np.linspace(0, max(n.max() for n in nsi), 61)
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    width = max(6.4, 2.9 * columns + 0.8)
    figure = new_figure(width, 5.4 * rows)
    axes = figure.subplots(
        2 * rows, columns, sharex=True, sharey=True, squeeze=False
    )
    # A column of panels for each model: delta above the ratio.
    places = [
        axes[2 * row : 2 * row + 2, column]
        for row in range(rows)
        for column in range(columns)
    ]
    for column in places[len(models) :]:
        for ax in column:
            ax.set_visible(False)
    bars = {}
    for column, (name, found) in zip(places, models.items(), strict=False):
        delta, ratio = stiffness_surface(found.nsi, m1, m2)
        for ax, surface, label, limit, extend in (
            (column[0], delta, 'delta(M)', 1.0, 'neither'),
            (column[1], ratio, 'stiff ratio p(M)', 0.5, 'max'),
        ):
            image = ax.pcolormesh(
                m1, m2, surface.T, vmin=0, vmax=limit, cmap='viridis'
            )
            bars[label] = {'mappable': image, 'extend': extend}
        title = wrap(name, (width - 1.6) / columns, 10)
        column[0].set_title(f'{title}\nTNS {found.tns:.3g}', fontsize=10)
        column[1].set_xlabel('M1 (relative)')
        column[1].tick_params(labelbottom=True)
    for ax, label in zip(axes[:, -1], [*bars] * rows, strict=True):
        figure.colorbar(ax=ax, label=label, **bars[label])
    for ax in axes[:, 0]:
        ax.set_ylabel('M2 (absolute)')
    return save(figure, path)


def draw_steps(models: Models, path: Path) -> Path:
    """Draws the distribution of the step sizes of blocks with attention."""
    shown = [
        (color(i), name, found.steps)
        for i, (name, found) in enumerate(models.items())
        if found.steps
    ]
    most = max(len(steps) for *_, steps in shown)
    figure = new_figure(max(6.4, 0.34 * most + 1.5), 2.6 * len(shown))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, (shade, name, steps) in zip(axes, shown, strict=True):
        known = [step[np.isfinite(step)] for step in steps.values()]
        values = {i: step for i, step in enumerate(known) if len(step)}
        if values:
            parts = ax.violinplot(
                list(values.values()),
                positions=list(values),
                widths=0.85,
                showextrema=False,
            )
            for body in parts['bodies']:
                body.set(facecolor=shade, alpha=0.35, linewidth=0)
        means = [step.mean() for step in values.values()]
        ax.scatter(list(values), means, color=shade, s=14, zorder=3)
        ax.axhline(1, color='black', lw=0.8, ls=':')
        tidy(ax)
        labels = [b.replace('layer', '').replace('stages.', '') for b in steps]
        ax.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
        ax.set(xlabel='block', ylabel='step size')
        ax.set_title(f'{name} (dots: means; dotted: no attention)', fontsize=9)
    return save(figure, path)


def draw_correlation(
    models: Models, scores: Sequence[float], path: Path, metric: str = 'AP'
) -> Path:
    """Draws scores against TNS, one point per model."""
    tau, rho = correlate([found.tns for found in models.values()], scores)
    figure = new_figure(6.6, 3.8)
    ax = figure.subplots()
    tidy(ax)
    for i, (name, score) in enumerate(zip(models, scores, strict=True)):
        ax.scatter(
            models[name].tns,
            score,
            color=color(i),
            marker=marker(i),
            label=name,
            zorder=3,
        )
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
    ax.margins(0.1)
    ax.set(xlabel='total neural stiffness (TNS)', ylabel=metric)
    what = '' if tau.interval is None else ', with 95 % intervals'
    ax.set_title(
        f"Kendall's tau {tau}\nSpearman's rho {rho}{what}", fontsize=9
    )
    return save(figure, path)


def _cell(
    statistic: Callable[..., float], values: np.ndarray, *args: float
) -> str:
    return f'{statistic(values, *args):.6g}' if len(values) else ''
