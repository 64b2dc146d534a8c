# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Every figure of the analysis: legend, labels, readable texts, content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import figures, legend_labels, require_readable
from matplotlib.figure import Figure

from mmext.analysis import (
    decision_boundary,
    filter_angles,
    stiffness_report,
    token_mixers,
)
from mmext.analysis.residual import Stage
from mmext.analysis.stiffness import Trajectories

__all__ = ['figures']  # a fixture

NAMES = [
    'faster-rcnn_r50_fpn_1x_coco',
    'faster-rcnn_stepnet-r50_fpn_1x_coco',
    'faster-rcnn_starnet-s050_fpn_1x_coco',
    'faster-rcnn_dwnet-tiny_fpn_amp-3x_coco',
    'retinanet_r50_fpn_1x_coco',
]


def trajectories(depths: tuple[int, ...], gates: bool) -> Trajectories:
    rng = np.random.default_rng(sum(depths) + gates)
    stages = [
        Stage(f'layer{i}', [f'layer{i}.{j}' for j in range(depth)])
        for i, depth in enumerate(depths, 1)
    ]
    blocks = [b for stage in stages for b in stage.blocks[1:]]
    steps = {b: rng.uniform(0, 2, (9, 8)) for s in stages for b in s.blocks}
    nsi = rng.gamma(2, 0.02, (9, len(blocks)))
    return Trajectories(stages, blocks, nsi, steps if gates else {}, [])


def models(number: int) -> dict[str, Trajectories]:
    """Models with other numbers of blocks; the third is like StarNet-S050."""
    kinds = [
        ((3, 4, 6, 3), False),
        ((3, 4, 6, 3), True),
        ((1, 1, 3, 1), False),
        ((2, 2, 18, 2), True),
        ((3,), False),
    ]
    made = [trajectories(*kind) for kind in kinds]
    return dict(zip(NAMES[:number], made, strict=False))


@pytest.mark.parametrize('number', [1, 2, 3, 5])
def test_stiffness(number: int, figures: list[Figure], tmp_path: Path) -> None:
    given = models(number)
    ap = np.linspace(30, 45, number) if number > 1 else None
    stiffness_report.write_report(given, tmp_path, ap)
    for figure in figures:
        require_readable(figure)
    lines, surfaces, *_ = figures
    # Regressions: StarNet, which has no curve in the first stage, was left
    # out of the legend. Names of three models overlapped.
    assert legend_labels(lines) == [
        f'{name} (TNS {found.tns:.3g})' for name, found in given.items()
    ]
    titles = [ax.get_title().replace('\n', '') for ax in surfaces.axes]
    for name in given:
        assert any(title.startswith(name) for title in titles)
    labels = {ax.get_ylabel() for ax in surfaces.axes}
    assert {'M2 (absolute)', 'delta(M)', 'stiff ratio p(M)'} <= labels
    if number == 1:
        return
    steps = figures[2]
    assert {ax.get_xlabel() for ax in steps.axes} == {'block'}
    assert {ax.get_ylabel() for ax in steps.axes} == {'step size'}
    assert legend_labels(figures[3]) == list(given)


def test_panels_without_a_curve_are_not_drawn(
    figures: list[Figure], tmp_path: Path
) -> None:
    star = {'starnet': trajectories((1, 1, 3, 1), False)}
    stiffness_report.draw_trajectories(star, tmp_path / 'a.png')
    (panel,) = figures[0].axes
    assert panel.get_title() == 'stage 3'
    require_readable(figures[0])


def test_a_block_without_a_known_step(
    figures: list[Figure], tmp_path: Path
) -> None:
    found = trajectories((2,), True)
    found.steps.update({b: np.full((9, 8), np.nan) for b in found.steps})
    stiffness_report.draw_steps({'a': found}, tmp_path / 'a.png')
    require_readable(figures[0])


def test_steps_close_to_one(figures: list[Figure], tmp_path: Path) -> None:
    """A regression: the axis had 0 where steps are 1, and +1 on its top."""
    found = trajectories((2,), True)
    found.steps.update({b: 1 + 1e-4 * s for b, s in found.steps.items()})
    stiffness_report.draw_steps({'a': found}, tmp_path / 'a.png')
    require_readable(figures[0])


def test_colours_and_markers_of_models_form_no_groups(
    figures: list[Figure], tmp_path: Path
) -> None:
    """A regression: the marker changed after seven models, as if by kind."""
    made = {f'model {i}': trajectories((3 + i,), False) for i in range(9)}
    path = tmp_path / 'a.png'
    stiffness_report.draw_correlation(made, range(9), path)
    (ax,) = figures[0].axes
    paths = [c.get_paths()[0].vertices.tobytes() for c in ax.collections]
    shades = [c.get_facecolor().tobytes() for c in ax.collections]
    assert len(set(paths)) == 9
    assert len(set(zip(paths, shades, strict=True))) == 9


@pytest.mark.parametrize('number', [1, 4])
def test_angles(number: int, figures: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [
        f'backbone.stages.2.blocks.{i}.depthwise_block.pointwise_conv'
        for i in range(5)
    ]
    found = {
        f'after {i} epochs of training': {
            name: filter_angles.Angles(rng.normal(90, 5 + i, 300), 0, True)
            for name in layers
        }
        | {'single': filter_angles.Angles(np.empty(0), 0, True)}
        for i in range(number)
    }
    filter_angles.draw_angles(found, tmp_path / 'a.png')
    require_readable(figures[0])
    assert legend_labels(figures[0]) == list(found)
    titles = [ax.get_title().replace('\n', '') for ax in figures[0].axes]
    assert titles[:6] == [*layers, 'single']
    for ax in figures[0].axes[:5]:
        # The numbers stand above the curves on their side.
        low, high = ax.get_ylim()
        left, right = ax.get_xlim()
        points = np.concatenate([path.get_xy() for path in ax.patches])
        assert points[:, 1].max() < high
        beside = points[:, 0] < left + 0.35 * (right - left)
        top = points[beside, 1].max()
        share = np.log(top / low) / np.log(high / low)
        assert share < 1 - 0.1 * number


def test_mixers(figures: list[Figure], tmp_path: Path) -> None:
    """Two mixers of equal costs: both show."""
    costs = {
        name: [
            token_mixers.Cost(s, 9, flops * s * s, 20 * s * s, 1.0)
            for s in (14, 28, 56)
        ]
        for name, flops in (('one', 300), ('two', 300), ('three', 600))
    }
    token_mixers.draw(costs, tmp_path / 'a.png')
    require_readable(figures[0])
    assert legend_labels(figures[0]) == list(costs)
    for ax in figures[0].axes:
        assert ax.get_xlabel() == 'side of the map' and ax.get_title()
        sizes = [line.get_markersize() for line in ax.lines]
        assert sizes == sorted(set(sizes), reverse=True)
        assert {x.get_markerfacecolor() for x in ax.lines} == {'none'}
        assert max(x.get_ydata().max() for x in ax.lines) < ax.get_ylim()[1]


def test_decision_boundary(figures: list[Figure], tmp_path: Path) -> None:
    regions = np.arange(200 * 200).reshape(200, 200) > 20_000
    kinds = ('star', 'sum', 'polynomial SVM', 'RBF SVM')
    run = decision_boundary.Boundaries(
        np.random.default_rng(0).normal(size=(20, 2)),
        np.arange(20) % 2,
        {name: regions.astype(int) for name in kinds},
        dict.fromkeys(kinds, 0.9),
    )
    decision_boundary.draw(run, tmp_path / 'a.png')
    require_readable(figures[0])
    assert len(legend_labels(figures[0])) == 2
