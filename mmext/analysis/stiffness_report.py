# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tables and figures of the stiffness of several models.

The figures follow those of "Understanding Self-attention Mechanism via
Dynamical System Perspective" (ICCV 2023): NSI along depth (Fig. 3), delta and
the stiff ratio over the thresholds (Figs. 2 and 6), TNS against accuracy
(Fig. 7).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmext.analysis.figures import COLORS, color, new_figure, save, tidy
from mmext.analysis.loading import image_inputs, load_model
from mmext.analysis.rank_correlation import Correlation, correlate
from mmext.analysis.stiffness import Trajectories, measure, stiffness_surface
from mmext.errors import UserError
from mmext.evaluation.runs import read_run
from mmext.utils.images import find_images

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
    """Measures the stiffness of the backbones of some models.

    Args:
        models: Pairs of a config and a checkpoint; see
            :func:`mmext.analysis.loading.load_model`.
        images: Image files or folders.
        names: Names of the models. Default: those of the configs.
        limit: Number of images at most. Default: 50.
        device: Default: ``'cpu'``.
        log: Called with one line per model. Default: nothing.

    Raises:
        UserError: See :func:`mmext.analysis.stiffness.measure`.
    """
    names = list(names or [Path(config).stem for config, _ in models])
    if len(set(names)) < len(names):
        names = [f'{name} {i + 1}' for i, name in enumerate(names)]
    files = find_images(images, limit)
    found = {}
    for name, (config, checkpoint) in zip(names, models, strict=True):
        cfg, model = load_model(config, checkpoint, device)
        inputs = image_inputs(cfg, model, files)
        found[name] = measure(model.backbone, inputs)
        row = model_row(name, found[name])
        log(', '.join(f'{k} {v}' for k, v in row.items()))
        if left_out := [str(files[i]) for i in found[name].left_out]:
            log(f'not finite and left out: {", ".join(left_out)}')
    return found


def write_report(
    models: Models, out_dir: str | Path, ap: Sequence[float] | None = None
) -> list[Path]:
    """Writes the tables and figures.

    Args:
        models: Measurements by the names of the models.
        out_dir: Folder of the files; it is created.
        ap: AP of each model, to correlate with TNS. Default: none.

    Returns:
        The files.
    """
    out = Path(out_dir)
    written = write_tables(models, out)
    written.append(draw_trajectories(models, out / 'trajectories.png'))
    written.append(draw_surfaces(models, out / 'surfaces.png'))
    if any(found.steps for found in models.values()):
        written.append(draw_steps(models, out / 'steps.png'))
    if ap is not None:
        written.append(draw_correlation(models, ap, out / 'correlation.png'))
    return written


def recorded_ap(checkpoints: Sequence[str | Path]) -> list[float]:
    """Returns the box AP of the runs that wrote these checkpoints.

    Raises:
        UserError: A work folder has no box AP.
    """
    values = []
    for checkpoint in checkpoints:
        run = read_run(Path(checkpoint).parent)
        if 'AP' not in run.metrics.get('bbox', {}):
            raise UserError(
                f'{run.path} has no box AP.',
                'Give the numbers with --ap, one per model.',
            )
        values.append(run.metrics['bbox']['AP'])
    return values


def correlation(
    models: Models, ap: Sequence[float]
) -> tuple[Correlation, Correlation]:
    """Returns Kendall's tau and Spearman's rho of TNS and AP."""
    return correlate([found.tns for found in models.values()], ap)


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
        'tns': _digits(found.tns),
        'tns_standard_error': _digits(found.tns_error),
        'nsi_mean': _digits(found.nsi.mean()),
        'nsi_max': _digits(found.nsi.max()),
        'stiff_ratio_at_m1_1': _digits(ratio[0, 0]),
    }


def _block_rows(name: str, found: Trajectories) -> list[dict[str, str]]:
    column = {block: i for i, block in enumerate(found.blocks)}
    rows = []
    for stage in found.stages:
        for block in stage.blocks:
            nsi = np.empty(0)
            if block in column:
                nsi = found.nsi[:, column[block]]
            steps = _known(found.steps.get(block))
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
    for number, (name, found) in enumerate(models.items()):
        column = {block: i for i, block in enumerate(found.blocks)}
        for ax, stage in zip(axes, found.stages, strict=False):
            numbers = [i for i, b in enumerate(stage.blocks) if b in column]
            if not numbers:
                continue
            nsi = found.nsi[:, [column[stage.blocks[i]] for i in numbers]]
            low, high = np.percentile(nsi, [10, 90], axis=0)
            x = [i + 1 for i in numbers]
            ax.fill_between(x, low, high, color=color(number), alpha=0.2, lw=0)
            ax.plot(
                x,
                nsi.mean(0),
                color=color(number),
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


def draw_surfaces(models: Models, path: Path) -> Path:
    """Draws delta(M) above the stiff ratio, over (M1, M2)."""
    nsi = [found.nsi for found in models.values()]
    # The ratio of an image that does not move is 0.
    highest = max(
        (n.max(1) / np.where(n.mean(1) > 0, n.mean(1), 1)).max() for n in nsi
    )
    m1 = np.linspace(0, highest - 1, 61)
    m2 = np.linspace(0, max(n.max() for n in nsi), 61)
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


def draw_steps(models: Models, path: Path) -> Path:
    """Draws the distribution of the step sizes of blocks with attention."""
    shown = [i for i, found in enumerate(models.values()) if found.steps]
    names, all_found = list(models), list(models.values())
    most = max(len(found.steps) for found in all_found)
    figure = new_figure(max(6.4, 0.34 * most + 1.5), 2.6 * len(shown))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, number in zip(axes, shown, strict=True):
        name, steps = names[number], all_found[number].steps
        values = [_known(step) for step in steps.values()]
        labels = [
            block.replace('layer', '').replace('stages.', '')
            for block in steps
        ]
        filled = [(i, v) for i, v in enumerate(values) if len(v)]
        parts = ax.violinplot(
            [v for _, v in filled],
            positions=[i for i, _ in filled],
            widths=0.85,
            showextrema=False,
        )
        for body in parts['bodies']:
            body.set(facecolor=color(number), alpha=0.35, linewidth=0)
        ax.scatter(
            [i for i, _ in filled],
            [v.mean() for _, v in filled],
            color=color(number),
            s=14,
            zorder=3,
        )
        ax.axhline(1, color='black', lw=0.8, ls=':')
        tidy(ax)
        ax.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
        ax.set_ylabel('step size')
        ax.set_title(f'{name} (dots: means; dotted: no attention)', fontsize=9)
    return save(figure, path)


def draw_correlation(models: Models, ap: Sequence[float], path: Path) -> Path:
    """Draws AP against TNS, one point per model."""
    tau, rho = correlation(models, ap)
    figure = new_figure(6.6, 3.8)
    ax = figure.subplots()
    tidy(ax)
    for i, (name, score) in enumerate(zip(models, ap, strict=True)):
        ax.scatter(
            models[name].tns,
            score,
            color=color(i),
            marker='os^Dv'[i // len(COLORS) % 5],
            label=name,
            zorder=3,
        )
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
    ax.margins(0.1)
    ax.set_xlabel('total neural stiffness (TNS)')
    ax.set_ylabel('AP')
    ax.set_title(f"Kendall's tau {tau}\nSpearman's rho {rho}", fontsize=9)
    return save(figure, path)


def _known(steps: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if steps is None else steps[np.isfinite(steps)]


def _digits(value: float) -> str:
    return f'{value:.6g}'


def _cell(
    statistic: Callable[..., float], values: np.ndarray, *args: float
) -> str:
    return _digits(statistic(values, *args)) if len(values) else ''
