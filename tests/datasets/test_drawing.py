# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The rasterizer and the polygons of masks, against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as rle

from mmext.datasets.shapes.drawing import (
    SAMPLES,
    UNIT,
    coverage,
    mask_to_polygons,
)

FULL = SAMPLES**2


def drawn_by_pycocotools(polygons: list, shape: tuple) -> np.ndarray:
    parts = rle.frPyObjects([[float(c) for c in p] for p in polygons], *shape)
    return rle.decode(rle.merge(parts)).astype(bool)


def test_aligned_rectangle_is_exact():
    corners = np.array([[2, 1], [7, 1], [7, 5], [2, 5]]) * UNIT
    want = np.zeros((8, 10), int)
    want[1:5, 2:7] = FULL
    np.testing.assert_array_equal(coverage(corners, 10, 8), want)
    np.testing.assert_array_equal(coverage(corners[::-1], 10, 8), want)


def test_half_pixel_rectangle_covers_half():
    corners = np.array([[0, 0], [5, 0], [5, 4], [0, 4]]) * UNIT // 2
    got = coverage(corners, 4, 3)
    assert got[0, 1] == FULL
    assert got[0, 2] == FULL // 2
    assert got.sum() == FULL * 5


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.int64, (7, 2), elements=st.integers(-3 * UNIT, 18 * UNIT)),
    st.integers(-3, 3),
)
def test_coverage_moves_and_clips_with_the_canvas(vertices, shift):
    """A window of a larger canvas equals the smaller canvas."""
    margin = 6
    large = coverage(vertices + (margin + shift) * UNIT, 32, 30)
    small = coverage(vertices + shift * UNIT, 20, 18)
    np.testing.assert_array_equal(
        large[margin : margin + 18, margin : margin + 20], small
    )


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.int64, (5, 2), elements=st.integers(0, 15 * UNIT)))
def test_coverage_equals_the_even_odd_rule(vertices):
    """Equals a point-in-polygon test at every sample."""
    grid = (np.arange(16 * SAMPLES) * UNIT + UNIT // 2) / SAMPLES
    px, py = np.meshgrid(grid, grid)
    odd = np.zeros(px.shape, bool)
    for (x0, y0), (x1, y1) in zip(
        vertices, np.roll(vertices, -1, axis=0), strict=True
    ):
        if y0 == y1:
            continue
        spans = (py >= min(y0, y1)) & (py < max(y0, y1))
        # Multiplied out by dy to stay exact.
        side = (x0 - px) * (y1 - y0) + (py - y0) * (x1 - x0)
        odd ^= spans & (side * np.sign(y1 - y0) <= 0)
    want = odd.reshape(16, SAMPLES, 16, SAMPLES).sum(axis=(1, 3))
    np.testing.assert_array_equal(coverage(vertices, 16, 16), want)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
    )
)
def test_polygons_cover_exactly_the_mask(mask):
    """With holes, corners that touch, several parts and borders."""
    polygons = mask_to_polygons(mask)
    assert bool(polygons) == bool(mask.any())
    if polygons:
        np.testing.assert_array_equal(
            drawn_by_pycocotools(polygons, mask.shape), mask
        )
        # Disjoint parts: areas add up, so a hole was cut and not filled.
        areas = [drawn_by_pycocotools([p], mask.shape).sum() for p in polygons]
        assert sum(areas) == mask.sum()


@pytest.mark.parametrize('hole', [(2, 3), (1, 6)])
def test_a_ring_becomes_two_parts(hole):
    mask = np.ones((5, 8), bool)
    mask[hole[0], hole[1]] = False
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    np.testing.assert_array_equal(
        drawn_by_pycocotools(polygons, mask.shape), mask
    )


def test_straight_edges_have_no_vertices_between():
    assert sorted(mask_to_polygons(np.ones((4, 6), bool))[0]) == sorted(
        [0, 0, 6, 0, 6, 4, 0, 4]
    )
