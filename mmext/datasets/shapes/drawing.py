# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Outlines of shapes, their exact drawing, and exact polygons of masks.

Vertices are rounded to a grid, and everything after that is integer
arithmetic. The same numbers therefore give the same pixels on every machine,
which ``cv2.fillPoly`` and PIL do not guarantee across versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SAMPLES = 4  # of each pixel along each axis; a coverage is 0 to SAMPLES**2
UNIT = 4 * SAMPLES  # vertices are integers in steps of 1/UNIT pixel


def _star(points: int, ratio: float) -> list[tuple[float, float]]:
    """Returns a star, or for ``ratio`` 1 a regular polygon."""
    turn = math.pi / points
    return [
        (r * math.sin(turn * i), -r * math.cos(turn * i))
        for i in range(2 * points)
        for r in [ratio if i % 2 else 1.0]
    ]


#: Corners of each class around the origin, at any scale.
OUTLINES = {
    'circle': _star(32, 1.0),
    'triangle': _star(3, 0.5),
    'square': _star(2, 1.0),
    'star': _star(5, 0.45),
    'cross': [(1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3)]
    + [(-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1), (-1, -3)],
}


def outline(
    name: str,
    centre: Sequence[float],
    side: float,
    angle: float = 0.0,
    stretch: float = 1.0,
) -> np.ndarray:
    """Returns the vertices of a shape, for :func:`coverage`.

    ``side`` is the square root of the area in pixels, ``stretch`` the ratio
    of width to height before the rotation by ``angle`` radians.
    """
    points = np.array(OUTLINES[name])
    points = points * (side / math.sqrt(abs(_doubled_area(points)) / 2))
    points = points * (math.sqrt(stretch), 1 / math.sqrt(stretch))
    c, s = math.cos(angle), math.sin(angle)
    x, y = points[:, 0], points[:, 1]
    points = np.stack([c * x - s * y, s * x + c * y], axis=1) + centre
    return np.rint(points * UNIT).astype(np.int64)


def area(vertices: np.ndarray) -> int:
    """Returns the area of a polygon, rounded down to pixels."""
    return int(abs(_doubled_area(vertices)) // (2 * UNIT**2))


def _doubled_area(points: np.ndarray) -> float:
    """Returns twice the area: positive for a region, negative for a hole."""
    after = np.roll(points, -1, axis=0)
    return (points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]).sum()


def coverage(vertices: np.ndarray, width: int, height: int) -> np.ndarray:
    """Counts the samples of each pixel inside a polygon (even-odd rule).

    The polygon, (n, 2) in steps of 1/UNIT pixel, may reach beyond the canvas.
    """
    canvas = np.zeros((height, width), np.int32)
    # Work in the smallest window of full pixels around the polygon.
    low = np.clip(vertices.min(axis=0) // UNIT, 0, (width, height))
    high = np.clip(-(-vertices.max(axis=0) // UNIT), 0, (width, height))
    width, height = (high - low).tolist()
    if width < 1 or height < 1:
        return canvas
    vertices = vertices - low * UNIT
    start, end = vertices, np.roll(vertices, -1, axis=0)
    step = UNIT // SAMPLES
    flips = np.zeros((height * SAMPLES, width * SAMPLES + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(start.tolist(), end.tolist(), strict=True):
        if y0 == y1:
            continue
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        # Sample row j is at step * j + step / 2. The edge covers the rows in
        # [y0, y1), and a sample exactly on the edge is inside.
        first = max(0, -((step // 2 - y0) // step))
        last = min(len(flips), -((step // 2 - y1) // step))
        if first >= last:
            continue
        rows = np.arange(first, last)
        y = rows * step + step // 2
        dy = y1 - y0
        crossing = x0 * dy + (y - y0) * (x1 - x0)
        columns = -((step // 2 * dy - crossing) // (step * dy))
        flips[rows, np.clip(columns, 0, width * SAMPLES)] += 1
    inside = np.cumsum(flips[:, :-1], axis=1) & 1
    canvas[low[1] : high[1], low[0] : high[0]] = inside.reshape(
        height, SAMPLES, width, SAMPLES
    ).sum(axis=(1, 3))
    return canvas


def mask_to_polygons(mask: np.ndarray) -> list[list[int]]:
    """Returns polygons along the pixels' edges that cover exactly this mask.

    A region with a hole is cut in two through the hole, because a COCO
    segmentation is a union of polygons.
    """
    loops = _loops(mask)
    for loop in loops:
        points = np.array(loop)
        if _doubled_area(points) < 0:
            cut = (points[:, 0].min() + points[:, 0].max()) // 2
            left, right = mask.copy(), mask.copy()
            left[:, cut:] = False
            right[:, :cut] = False
            return mask_to_polygons(left) + mask_to_polygons(right)
    return [[c for point in loop for c in point] for loop in loops]


def _loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Returns closed paths along pixel edges, with the region on the right."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    # Direction of the path -> where the neighbouring pixel is, and the offset
    # of the edge from the pixel's upper left corner.
    sides = {
        (1, 0): (padded[:-2, 1:-1], (0, 0)),
        (0, 1): (padded[1:-1, 2:], (1, 0)),
        (-1, 0): (padded[2:, 1:-1], (1, 1)),
        (0, -1): (padded[1:-1, :-2], (0, 1)),
    }
    leaving: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for direction, (neighbour, (ox, oy)) in sides.items():
        ys, xs = np.nonzero(inner & ~neighbour)
        for x, y in zip((xs + ox).tolist(), (ys + oy).tolist(), strict=True):
            leaving.setdefault((x, y), set()).add(direction)

    loops = []
    for origin in sorted(leaving):
        while leaving[origin]:
            # Right turns first: pixels that touch at a corner stay apart.
            direction = min(leaving[origin])
            point, loop = origin, []
            while True:
                leaving[point].remove(direction)
                point = (point[0] + direction[0], point[1] + direction[1])
                right = (-direction[1], direction[0])
                left = (direction[1], -direction[0])
                turns = (right, direction, left)
                following = next(
                    (d for d in turns if d in leaving[point]), None
                )
                if following != direction:
                    loop.append(point)
                if following is None:
                    break
                direction = following
            loops.append(loop)
    return loops
