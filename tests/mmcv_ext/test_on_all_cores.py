# Licensed under the Apache License, Version 2.0. See LICENSE.
"""RoIAlign's average and NMS on a CPU against torchvision's kernels."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv
import mmcv.ops

pytestmark = pytest.mark.skipif(
    not hasattr(mmcv._ext, '__path__'), reason='mmcv is compiled'
)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_rois(n: int, g: torch.Generator) -> Tensor:
    """Boxes of 1 to 150 pixels around a map of three images, 160 x 128."""
    size = torch.exp(5 * torch.rand(n, 2, generator=g))
    centre = torch.rand(n, 2, generator=g) * torch.tensor([200.0, 170]) - 20
    image = torch.randint(0, 2, (n, 1), generator=g) * 2.0
    rois = torch.cat([image, centre - size / 2, centre + size / 2], 1)
    rois[: n // 4, 1:] = rois[: n // 4, 1:].round()
    return rois


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('size', [(7, 7), (3, 5)])
def test_average_equals_torchvision(
    size: tuple[int, int],
    ratio: int,
    aligned: bool,
    layout: torch.memory_format,
    generator: torch.Generator,
) -> None:
    """Twice in one graph; 1e-6 of the largest value is rounding."""
    x = torch.randn(3, 8, 32, 40, generator=generator)
    x = x.to(memory_format=layout).requires_grad_()
    found = []
    sets = [random_rois(n, generator) for n in (150, 40)]
    for op in (mmcv.ops.roi_align, torchvision.ops.roi_align):
        mode = ['avg'] if op is mmcv.ops.roi_align else []
        out = [op(x, r, size, 1 / 4, ratio, *mode, aligned) for r in sets]
        loss = sum((o * o.detach().cos()).sum() for o in out)
        found.append([*out, *torch.autograd.grad(loss, x)])
    for ours, theirs in zip(*found, strict=True):
        assert theirs.any()
        limit = 1e-6 * float(theirs.abs().max())
        assert float((ours - theirs).abs().max()) < limit
    assert not found[0][2][1].any()  # no box is on the second image


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_is_rounded_once(
    dtype: torch.dtype,
    layout: torch.memory_format,
    generator: torch.Generator,
) -> None:
    x = torch.randn(3, 8, 32, 40, generator=generator).to(dtype)
    rois = random_rois(60, generator).to(dtype)
    results = []
    for t in (x.to(memory_format=layout), x.float()):
        t.requires_grad_()
        out = mmcv.ops.roi_align(t, rois.to(t.dtype), 7, 1 / 4)
        gout = torch.ones_like(out) / 8
        results.append([out, *torch.autograd.grad(out, t, gout)])
    for half, full in zip(*results, strict=True):
        assert half.dtype == dtype
        assert torch.equal(half, full.to(dtype))


def test_gradcheck(generator: torch.Generator) -> None:
    rois = random_rois(6, generator).double()
    x = torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.double)
    for ratio in (0, 2):
        torch.autograd.gradcheck(
            lambda x, ratio=ratio: mmcv.ops.roi_align(x, rois, 2, 0.1, ratio),
            x.requires_grad_(),
        )


def test_no_rois() -> None:
    x = torch.randn(2, 3, 8, 8).requires_grad_()
    out = mmcv.ops.roi_align(x, torch.zeros(0, 5), 7)
    assert out.shape == (0, 3, 7, 7)
    assert not torch.autograd.grad(out.sum(), x)[0].any()


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('_threads')
def test_neither_threads_nor_chunks_change_results(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3, 8, 32, 40, generator=generator).requires_grad_()
    rois = random_rois(200, generator)
    gout = torch.randn(200, 8, 7, 7, generator=generator)

    def go() -> list[Tensor]:
        out = mmcv.ops.roi_align(x, rois, 7, 1 / 4)
        return [out, *torch.autograd.grad(out, x, gout)]

    want = go()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, go(), want))
    monkeypatch.setattr(mmcv._ext.roi_average, 'ENTRIES', 5000)
    out, grad = go()
    assert torch.equal(out, want[0])
    torch.testing.assert_close(grad, want[1])


def overlapping_boxes(n: int, g: torch.Generator) -> Tensor:
    corner = torch.rand(n, 2, generator=g) * 100
    return torch.cat([corner, corner + torch.rand(n, 2, generator=g) * 40], 1)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize('kind', ['one', 'levels', 'sparse', 'bad', 'lines'])
def test_nms_keeps_torchvisions_boxes_in_its_order(
    kind: str, threshold: float, offset: int, generator: torch.Generator
) -> None:
    """Many scores are equal."""
    boxes = overlapping_boxes(500, generator)
    if kind == 'levels':
        boxes += 141 * torch.randint(0, 6, (500, 1), generator=generator)
    elif kind == 'sparse':
        boxes[:, ::2] *= 300
        boxes[:, 2] = boxes[:, 0] + 40
    elif kind == 'bad':  # inverted, without area, far away
        boxes[::3] = boxes[::3].roll(2, 1)
        boxes[1::7, 2:] = boxes[1::7, :2]
        boxes[::50] *= 1e4
    elif kind == 'lines':  # boxes that touch
        boxes = torch.arange(500)[:, None] // 5 * 10.0 + torch.tensor(
            [[0.0, 0, 10, 10]]
        )
    scores = torch.randint(0, 50, (500,), generator=generator) / 50
    got = mmcv._ext.nms(boxes, scores, threshold, offset)
    moved = boxes + torch.tensor([0, 0, offset, offset])
    want = torchvision.ops.nms(moved, scores, threshold)
    assert torch.equal(got, want)


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('column', range(4))
def test_nms_of_boxes_that_are_not_finite(
    column: int, value: float, generator: torch.Generator
) -> None:
    boxes = overlapping_boxes(300, generator)
    boxes += 141 * torch.randint(0, 6, (300, 1), generator=generator)
    boxes[::20, column] = value
    scores = torch.rand(300, generator=generator)
    want = torchvision.ops.nms(boxes, scores, 0.5)
    assert torch.equal(mmcv._ext.nms(boxes, scores, 0.5, 0), want)


def test_levels_are_separate_parts(generator: torch.Generator) -> None:
    level = torch.arange(600) % 6
    boxes = overlapping_boxes(600, generator) + 141 * level[:, None]
    # The function of the same name hides the module in its package.
    found = sys.modules['mmcv._ext.nms']._separate(boxes)
    assert len(found) == 6
    assert all(len(level[part].unique()) == 1 for part in found)
