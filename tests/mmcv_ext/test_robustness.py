# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The ops with other types, bad values and unusual layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torchvision
from torch import Tensor

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv
import mmcv.ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

pytestmark = pytest.mark.skipif(
    not hasattr(mmcv._ext, '__path__'), reason='mmcv is compiled'
)


def boxes(n: int, seed: int = 0) -> Tensor:
    """Random boxes within 100 x 80 pixels."""
    g = torch.Generator().manual_seed(seed)
    start = torch.rand(n, 2, generator=g) * torch.tensor([80.0, 60.0])
    size = torch.rand(n, 2, generator=g) * 20 + 2
    return torch.cat([start, start + size], 1)


def rand(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g)


ROIS = torch.cat([torch.tensor([[0.0], [1], [1], [0]]), boxes(4)], 1)
SHAPES = torch.tensor([[6, 5], [3, 2]])
START = torch.tensor([0, 30])


def attend(value: Tensor, loc: Tensor, attn: Tensor) -> Tensor:
    return MultiScaleDeformableAttnFunction.apply(
        value, SHAPES, START, loc, attn, 64
    )


# The ops of an input (2, 4, 10, 12); `cast` rounds their other inputs.
Cast = Callable[[Tensor], Tensor]


def roi_align(x: Tensor, cast: Cast) -> Tensor:
    return mmcv.ops.roi_align(x, cast(ROIS), 3, 1 / 8, 2, 'avg', True)


def roi_align_max(x: Tensor, cast: Cast) -> Tensor:
    return mmcv.ops.roi_align(x, cast(ROIS), 3, 1 / 8, 0, 'max', True)


def roi_pool(x: Tensor, cast: Cast) -> Tensor:
    return mmcv.ops.roi_pool(x, cast(ROIS), 3, 1 / 8)


def border_align(x: Tensor, cast: Cast) -> Tensor:
    return mmcv.ops.border_align(x, cast(boxes(6).view(2, 3, 4) / 8), 5)


def deform_roi_pool(x: Tensor, cast: Cast) -> Tensor:
    offset = cast(rand(4, 2, 3, 3, seed=1))
    return mmcv.ops.deform_roi_pool(x, cast(ROIS), offset, 3, 1 / 8, 2, 0.1)


def deform_conv(x: Tensor, cast: Cast) -> Tensor:
    offset = cast(rand(2, 18, 10, 12, seed=1))
    weight = cast(rand(3, 4, 3, 3, seed=2))
    return mmcv.ops.deform_conv2d(x, offset, weight, 1, 1)


def modulated_deform_conv(x: Tensor, cast: Cast) -> Tensor:
    offset = cast(rand(2, 18, 10, 12, seed=1))
    mask = cast(rand(2, 9, 10, 12, seed=3).sigmoid())
    weight = cast(rand(3, 4, 3, 3, seed=2))
    return mmcv.ops.modulated_deform_conv2d(
        x, offset, mask, weight, None, 1, 1, 1, 1, 1
    )


def ms_deform_attn(x: Tensor, cast: Cast) -> Tensor:
    value = x.flatten()[: 2 * 36 * 4].view(2, 36, 2, 2)
    loc = cast(rand(2, 7, 2, 2, 3, 2, seed=1).sigmoid())
    return attend(value, loc, cast(rand(2, 7, 2, 2, 3, seed=2)))


def sigmoid_focal(x: Tensor, cast: Cast) -> Tensor:
    rows = x.flatten().view(-1, 8)
    target = torch.arange(len(rows)) % 9  # 8 is background
    return mmcv.ops.sigmoid_focal_loss(rows, target, 2.0, 0.25, None, 'none')


def softmax_focal(x: Tensor, cast: Cast) -> Tensor:
    rows = x.flatten().view(-1, 8)
    target = torch.arange(len(rows)) % 8
    # mmcv's own backward fails here with reduction='none'.
    return mmcv.ops.softmax_focal_loss(rows, target, 2.0, 0.25, None, 'sum')


def carafe(x: Tensor, cast: Cast) -> Tensor:
    return mmcv.ops.carafe(x, cast(rand(2, 50, 20, 24, seed=1)), 5, 2, 2)


SMOOTH = [
    roi_align,
    deform_roi_pool,
    deform_conv,
    modulated_deform_conv,
    ms_deform_attn,
    sigmoid_focal,
    softmax_focal,
    carafe,
]
OPS = [*SMOOTH, roi_align_max, roi_pool, border_align]


def run(
    op: Callable, x: Tensor, via: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Returns result and gradient; other inputs are rounded to ``via``."""
    x = x.detach().clone().requires_grad_()
    out = op(x, lambda other: other.to(via or x.dtype).to(x.dtype))
    (grad,) = torch.autograd.grad(out.float().square().sum(), x)
    return out, grad


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('op', [op for op in OPS if op != softmax_focal])
def test_half_is_computed_in_float(op: Callable, dtype: torch.dtype) -> None:
    """Only inputs and results are rounded, never what lies between.

    Not so of the softmax, which mmcv takes itself before it calls the op.
    """
    x = rand(2, 4, 10, 12).to(dtype)
    got, grad = run(op, x)
    assert got.dtype == grad.dtype == dtype
    want, _ = run(op, x.float(), via=dtype)
    assert torch.equal(got, want.to(dtype))
    assert grad.isfinite().all()


@pytest.mark.parametrize('op', SMOOTH)
def test_gradients_match_finite_differences(op: Callable) -> None:
    x = rand(2, 4, 10, 12).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: op(x, Tensor.double), x, fast_mode=True, atol=1e-4
    )


@pytest.mark.parametrize('op', OPS)
def test_autocast_and_memory_layout_change_nothing(op: Callable) -> None:
    x = rand(2, 4, 10, 12)
    want = run(op, x)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(run(op, x), want)
    tall = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(run(op, tall), want)
    torch.testing.assert_close(run(op, x.mT.contiguous().mT), want)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize('mode', ['avg', 'max', 'pool'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_a_wild_box_gives_nan_and_no_gradient(
    value: float, mode: str, ratio: int
) -> None:
    """Kernels would read out of bounds here and crash."""
    x = rand(1, 2, 8, 8).requires_grad_()
    rois = torch.tensor([[0.0, 1, 1, 5, 5], [0, 1, 1, 5, 5]])

    def pool(rois: Tensor) -> Tensor:
        if mode == 'pool':
            return mmcv.ops.roi_pool(x, rois, 2, 1.0)
        return mmcv.ops.roi_align(x, rois, 2, 1.0, ratio, mode, True)

    want = torch.autograd.grad(pool(rois[:1]).sum(), x)[0]
    for column in range(1, 5):
        wild = rois.clone()
        wild[1, column] = value
        out = pool(wild)
        assert out[1].isnan().all()
        assert out[0].isfinite().all()
        torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], want)


def roi_align_by_definition(
    x: Tensor, roi: list[float], size: int, ratio: int, mode: str, al: bool
) -> Tensor:
    """mmcv's CUDA kernel (roi_align_cuda_kernel.cuh) in loops, for one box."""
    x1, y1, x2, y2 = (v - (0.5 if al else 0) for v in roi)
    w, h = x2 - x1, y2 - y1
    if not al:
        w, h = max(w, 1.0), max(h, 1.0)
    gw, gh = (ratio or math.ceil(v / size) for v in (w, h))
    out = x.new_full((len(x), size, size), 0.0 if mode == 'avg' else -1e4)
    for row, col in product(range(size), repeat=2):
        values = [
            bilinear(
                x,
                y1 + (row + (iy + 0.5) / gh) * h / size,
                x1 + (col + (ix + 0.5) / gw) * w / size,
            )
            for iy, ix in product(range(gh), range(gw))
        ]
        if values:
            values = torch.stack(values)
            pooled = values.mean(0) if mode == 'avg' else values.amax(0)
            out[:, row, col] = pooled
    return out


def bilinear(x: Tensor, row: float, col: float) -> Tensor:
    h, w = x.shape[1:]
    if not (-1 <= row <= h and -1 <= col <= w):
        return x.new_zeros(len(x))
    at = x.new_tensor([2 * col / (w - 1) - 1, 2 * row / (h - 1) - 1])
    return torch.nn.functional.grid_sample(
        x[None],
        at[None, None, None],
        padding_mode='border',
        align_corners=True,
    ).flatten()


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_of_inverted_boxes(
    aligned: bool, mode: str, ratio: int
) -> None:
    """With one sample per pixel there is none, else the bins are mirrored.

    torchvision's CPU kernel asks for a vector of negative size.
    """
    x = rand(1, 2, 8, 9).double().requires_grad_()
    inverted = [
        [6.3, 1.2, 2.1, 5.4],
        [1.2, 6.3, 5.4, 2.1],
        [6.3, 5.4, 1.2, 2.1],
        [3.0, 1.0, 3.0, 5.0],
        [1.2, 1.2, 6.3, 5.4],
    ]
    rois = torch.tensor([[0.0, *box] for box in inverted]).double()
    got = mmcv.ops.roi_align(x, rois, 3, 1.0, ratio, mode, aligned)
    want = torch.stack(
        [
            roi_align_by_definition(x[0], box, 3, ratio, mode, aligned)
            for box in rois[:, 1:].tolist()
        ]
    )
    torch.testing.assert_close(got, want)
    gout = rand(*got.shape, seed=1).double()
    torch.testing.assert_close(
        torch.autograd.grad(got, x, gout)[0],
        torch.autograd.grad(want, x, gout)[0],
    )


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_of_many_samples(
    aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes that are too large for torchvision's kernel equal its result."""
    x = rand(2, 3, 10, 12).double().requires_grad_()
    rois = torch.cat(
        [ROIS, torch.tensor([[1.0, -400, -90, 300, 500]])]
    ).double()
    gout = rand(5, 3, 3, 2, seed=1).double()

    def pool() -> tuple[Tensor, Tensor]:
        out = mmcv.ops.roi_align(x, rois, (3, 2), 1 / 8, 0, 'avg', aligned)
        return out, torch.autograd.grad(out, x, gout)[0]

    want = pool()
    monkeypatch.setattr(mmcv._ext.roi_align, 'MANY', 8)
    torch.testing.assert_close(pool(), want)


@pytest.mark.parametrize('ratio', [0, 2])
def test_the_deterministic_gradient_of_roi_align_is_the_kernels(
    ratio: int,
) -> None:
    """A GPU uses it with deterministic=True."""
    gout = rand(5, 3, 3, 2).double()
    x = rand(2, 3, 10, 12).double().requires_grad_()
    rois = torch.cat([ROIS, ROIS[:1].roll(2, 1)]).double()
    rois[4, 0] = 0
    out = mmcv.ops.roi_align(x, rois, (3, 2), 1 / 8, ratio, 'avg', True)
    (want,) = torch.autograd.grad(out, x, gout)
    got = mmcv._ext.roi_align._ordered_gradient(
        gout, rois, x, (3, 2), (1 / 8, ratio, True)
    )
    assert want.any()
    torch.testing.assert_close(got, want)


def test_roi_align_of_a_million_pixels() -> None:
    """torchvision's kernel would ask for terabytes."""
    x = torch.ones(1, 2, 8, 8).requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 1e6, 1e6], [0, 1, 1, 5, 5]])
    out = mmcv.ops.roi_align(x, rois, 2, 1.0, 0, 'avg', True)
    corner = out[0, 0, 0, 0].item()
    assert corner == pytest.approx((9 / 5e5) ** 2, rel=1e-3)
    assert (out[0, :, 1] == 0).all() and (out[0, :, :, 1] == 0).all()
    assert (out[1] == 1).all()
    grad = torch.autograd.grad(out.sum(), x)[0]
    torch.testing.assert_close(grad.sum(), out.detach().sum())


@pytest.mark.parametrize('op', ['roi_align', 'roi_pool'])
def test_a_box_of_an_image_not_in_the_batch_is_an_error(op: str) -> None:
    rois = torch.tensor([[1.0, 1, 1, 5, 5]])
    with pytest.raises(IndexError, match='image 1, but the batch has 1'):
        getattr(mmcv.ops, op)(rand(1, 2, 8, 8), rois, 2)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_a_wild_offset_reads_zero(value: float) -> None:
    x, w = rand(1, 2, 5, 5).requires_grad_(), rand(3, 2, 1, 1, seed=1)
    offset = torch.zeros(1, 2, 5, 5)
    offset[0, 0, 2, 2] = value
    offset.requires_grad_()
    mask = torch.ones(1, 1, 5, 5)
    for out in (
        mmcv.ops.deform_conv2d(x, offset, w),
        mmcv.ops.modulated_deform_conv2d(
            x, offset, mask, w, None, 1, 0, 1, 1, 1
        ),
    ):
        assert (out[0, :, 2, 2] == 0).all()
        gx, go = torch.autograd.grad(out.sum(), (x, offset))
        assert (gx[0, :, 2, 2] == 0).all()
        assert (go[0, :, 2, 2] == 0).all()


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf, 3e38])
def test_a_wild_location_reads_zero(value: float) -> None:
    loc = torch.full((1, 3, 2, 2, 3, 2), 0.5)
    loc[0, 1] = value
    tensors = [rand(1, 36, 2, 2), loc, torch.ones(1, 3, 2, 2, 3)]
    maps, loc, attn = (t.requires_grad_() for t in tensors)
    out = attend(maps, loc, attn)
    assert (out[0, 1] == 0).all()
    assert (out[0, [0, 2]] != 0).all()
    grads = torch.autograd.grad(out.sum(), (maps, loc, attn))
    assert grads[0].isfinite().all()
    for grad in grads[1:]:
        assert (grad[0, 1] == 0).all()
        assert grad.isfinite().all()


@pytest.mark.parametrize('value', [torch.nan, torch.inf, 1e30])
def test_a_wild_offset_of_a_bin_reads_zero(value: float) -> None:
    x = rand(1, 2, 8, 8)
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    offset = torch.zeros(1, 2, 2, 2)
    offset[0, :, 1, 1] = value
    offset.requires_grad_()
    out = mmcv.ops.deform_roi_pool(x, rois, offset, 2, 1.0, 2)
    assert (out[0, :, 1, 1] == 0).all()
    grad = torch.autograd.grad(out.sum(), offset)[0]
    assert (grad[0, :, 1, 1] == 0).all()
    assert (grad != 0).sum() == 6


def test_boxes_without_area_keep_their_scores() -> None:
    """As clipped to the image's edge: their IoU is 0 / 0."""
    line = torch.tensor([[5.0, 2, 5, 8]]).repeat(3, 1)
    scores = torch.tensor([0.9, 0.8, 0.7])
    for method in ('naive', 'linear', 'gaussian'):
        dets, keep = mmcv.ops.soft_nms(line, scores, method=method)
        assert dets[:, 4].tolist() == scores.tolist()
        assert keep.tolist() == [0, 1, 2]


def test_a_rotated_box_of_nan_drops_no_other() -> None:
    boxes = torch.tensor([[5.0, 5, 4, 4, 0], [5, 5, 4, 4, 0], [9, 9, 1, 1, 0]])
    boxes[0, 0] = torch.nan
    _, keep = mmcv.ops.nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    assert keep.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float64]
)
def test_nms_takes_half_and_double(dtype: torch.dtype) -> None:
    b, scores = boxes(50).to(dtype), torch.rand(50).to(dtype)
    _, keep = mmcv.ops.nms(b, scores, 0.3)
    want = torchvision.ops.nms(b.float(), scores.float(), 0.3)
    assert keep.sort()[0].tolist() == want.sort()[0].tolist()


def test_offsets_of_another_size_are_refused() -> None:
    x, w = rand(1, 2, 8, 8), rand(2, 2, 3, 3)
    with pytest.raises(ValueError, match='same stride'):
        mmcv.ops.deform_conv2d(x, torch.zeros(1, 18, 8, 8), w)
    offset, mask = torch.zeros(1, 18, 3, 3), torch.zeros(1, 9, 3, 3)
    with pytest.raises(ValueError, match='too small'):
        mmcv.ops.modulated_deform_conv2d(
            x, offset, mask, w, None, 1, 1, 1, 1, 1
        )


def test_weight_gradient_alone_after_other_backwards() -> None:
    """The first of two calls also computes the gradient of the weight."""
    x, w = rand(2, 2, 6, 6), rand(3, 2, 3, 3, seed=1).requires_grad_()
    offset = rand(2, 18, 6, 6, seed=2).requires_grad_()
    out = mmcv.ops.deform_conv2d(x, offset, w, 1, 1)
    ones, twos = torch.ones_like(out), torch.full_like(out, 2)
    full = torch.autograd.grad(out, (offset, w), ones, retain_graph=True)
    torch.autograd.grad(out, offset, ones, retain_graph=True)
    alone = torch.autograd.grad(out, w, twos, retain_graph=True)[0]
    torch.testing.assert_close(alone, 2 * full[1])
    frozen = mmcv.ops.deform_conv2d(x, offset.detach(), w, 1, 1)
    torch.testing.assert_close(torch.autograd.grad(frozen, w, twos)[0], alone)


def test_focal_loss_saturates_and_weighs_classes() -> None:
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    target = torch.tensor([1, 1])
    loss = mmcv.ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none')
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    want = torch.tensor([[-0.75, -0.25], [0, 0]]) * tiny.log()
    torch.testing.assert_close(loss, want)
    assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()
    weight = torch.tensor([2.0, 3.0])
    for op in (mmcv.ops.sigmoid_focal_loss, mmcv.ops.softmax_focal_loss):
        x = rand(4, 2)
        target = torch.tensor([0, 1, 1, 0])
        plain = op(x, target, 2.0, 0.25, None, 'none')
        by_class = op(x, target, 2.0, 0.25, weight, 'none')
        rows = weight[target]
        torch.testing.assert_close(
            by_class, plain * (rows[:, None] if plain.dim() == 2 else rows)
        )


@pytest.mark.parametrize('gamma', [0.0, 0.5])
def test_softmax_focal_loss_of_a_certain_row_has_a_gradient(
    gamma: float,
) -> None:
    x = torch.tensor([[200.0, 0, 0], [0, 200, 0]], requires_grad=True)
    target = torch.tensor([0, 0])
    loss = mmcv.ops.softmax_focal_loss(x, target, gamma, 1.0, None, 'sum')
    grad = torch.autograd.grad(loss, x)[0]
    want = torch.tensor([[0.0, 0, 0], [-1, 1, 0]])
    torch.testing.assert_close(grad, want)


def test_sigmoid_focal_loss_against_torchvision() -> None:
    x = rand(20, 5).requires_grad_()
    target = torch.arange(20) % 6  # 5 is background
    got = mmcv.ops.sigmoid_focal_loss(x, target, 1.5, 0.3, None, 'sum')
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5].float()
    want = torchvision.ops.sigmoid_focal_loss(x, one_hot, 0.3, 1.5, 'sum')
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0]
    )


def test_carafe_naive_backward_equals_carafe() -> None:
    feat, masks = rand(2, 4, 3, 5), rand(2, 18, 6, 10, seed=1)
    gout = rand(2, 4, 6, 10, seed=2)
    feat.requires_grad_()
    masks.requires_grad_()
    out = mmcv.ops.carafe(feat, masks, 3, 2, 2)
    want = torch.autograd.grad(out, (feat, masks), gout)
    got = [torch.zeros_like(feat), torch.zeros_like(masks)]
    with torch.no_grad():
        arguments = {'kernel_size': 3, 'group_size': 2, 'scale_factor': 2}
        mmcv._ext.carafe_naive_backward(gout, feat, masks, *got, **arguments)
    torch.testing.assert_close(got, list(want))


@pytest.mark.parametrize('kernel, padding', [(3, 1), (5, 2), (1, 0)])
def test_masked_conv_is_a_conv_where_the_mask_is(
    kernel: int, padding: int
) -> None:
    x, w = rand(1, 3, 9, 7), rand(4, 3, kernel, kernel, seed=1)
    bias, mask = rand(4, seed=2), rand(1, 9, 7, seed=3) > 0
    out = mmcv.ops.masked_conv2d(x, mask.float(), w, bias, padding)
    want = torch.nn.functional.conv2d(x, w, bias, padding=padding) * mask
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)


def test_ops_take_no_boxes() -> None:
    x = rand(1, 2, 8, 8).requires_grad_()
    for op in (mmcv.ops.roi_align, mmcv.ops.roi_pool):
        out = op(x, torch.zeros(0, 5), 2)
        assert out.shape == (0, 2, 2, 2)
        assert (torch.autograd.grad(out.sum(), x)[0] == 0).all()
    out = mmcv.ops.roi_align(x, torch.zeros(0, 5), 2, 1.0, 0, 'max', True)
    assert out.shape == (0, 2, 2, 2)
    dets, keep = mmcv.ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and keep.shape == (0,)
    loss = mmcv.ops.sigmoid_focal_loss(
        torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2.0, 0.25
    )
    assert loss.isnan()  # 0 / 0, as in mmcv


@pytest.mark.parametrize(('images', 'queries'), [(0, 3), (2, 0)])
def test_deformable_attention_of_nothing(images: int, queries: int) -> None:
    value = rand(images, 36, 2, 4).requires_grad_()
    attn = torch.rand(images, queries, 2, 2, 3)
    out = attend(value, torch.rand(*attn.shape, 2), attn)
    assert out.shape == (images, queries, 8)
    grad = torch.autograd.grad(out.sum(), value)[0]
    assert torch.equal(grad, torch.zeros_like(value))


def test_keys_of_no_level_have_no_gradient() -> None:
    """Uninitialised memory is not returned; PyTorch fills it with NaN."""
    value = rand(1, 40, 2, 2).requires_grad_()  # the levels have 36
    loc, attn = torch.rand(1, 3, 2, 2, 3, 2), torch.rand(1, 3, 2, 2, 3)
    out = attend(value, loc, attn)
    torch.use_deterministic_algorithms(True)
    try:
        grad = torch.autograd.grad(out.sum(), value)[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert (grad[:, 36:] == 0).all()


def test_deform_roi_pool_without_offsets_is_roi_align() -> None:
    x = rand(2, 4, 10, 12).requires_grad_()
    gout = rand(4, 4, 3, 2, seed=1)
    for ratio in (0, 2):
        want = mmcv.ops.roi_align(x, ROIS, (3, 2), 1 / 8, ratio, 'avg', True)
        for offset in (None, torch.zeros(4, 2, 3, 2)):
            got = mmcv.ops.deform_roi_pool(
                x, ROIS, offset, (3, 2), 1 / 8, ratio
            )
            torch.testing.assert_close(got, want)
            torch.testing.assert_close(
                torch.autograd.grad(got, x, gout)[0],
                torch.autograd.grad(want, x, gout, retain_graph=True)[0],
            )


def test_deform_roi_pool_offset_gradient() -> None:
    """By differences on a linear map, as bilinear slopes jump at pixels."""
    y, x = torch.meshgrid(
        torch.arange(16.0), torch.arange(16.0), indexing='ij'
    )
    plane = (2 * x + 3 * y).double()[None, None]
    rois = torch.tensor([[0.0, 4, 4, 11, 9]]).double()
    offset = (rand(1, 2, 2, 2).double() * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda o: mmcv.ops.deform_roi_pool(plane, rois, o, 2, 1.0, 2, 0.1),
        offset,
    )


def test_rotated_boxes_without_rotation_are_boxes() -> None:
    a, b = boxes(12), boxes(9, seed=1)
    want = torchvision.ops.box_iou(a, b)
    turn = torch.tensor([0.0, torch.pi / 2])  # swaps w and h

    def turned(x: Tensor, quarter: int) -> Tensor:
        size = x[:, 2:] - x[:, :2]
        size = size.flip(1) if quarter else size
        centre = (x[:, :2] + x[:, 2:]) / 2
        angle = turn[quarter].expand(len(x), 1)
        return torch.cat([centre, size, angle], 1)

    for i in (0, 1):
        for j in (0, 1):
            got = mmcv.ops.box_iou_rotated(turned(a, i), turned(b, j))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    scores = torch.rand(12, generator=torch.Generator().manual_seed(2))
    keep = torchvision.ops.nms(a, scores, 0.1)
    assert len(keep) < 12
    _, got = mmcv.ops.nms_rotated(turned(a, 1), scores, 0.1)
    assert got.tolist() == keep.tolist()


def test_rotated_nms_ignores_labels_as_compiled_ops() -> None:
    """The boxes of mmcv's test_ml_nms_rotated."""
    boxes = torch.tensor(
        [
            [6.0, 3.0, 8.0, 7.0, 0.5],
            [3.0, 6.0, 9.0, 11.0, 0.6],
            [3.0, 7.0, 10.0, 12.0, 0.3],
            [1.0, 4.0, 13.0, 7.0, 0.6],
        ]
    )
    scores = torch.tensor([0.7, 0.8, 0.5, 0.9])
    labels = torch.tensor([1.0, 0, 1, 0])
    flipped = boxes * boxes.new_tensor([1, 1, 1, 1, -1])
    for given, clockwise in ((boxes, True), (flipped, False)):
        dets, keep = mmcv.ops.nms_rotated(
            given, scores, 0.5, labels, clockwise
        )
        assert keep.tolist() == [3, 1, 0]
        assert torch.equal(dets[:, :5], given[keep])


@pytest.mark.parametrize('threshold', [0.05, 0.3, 0.9])
def test_rotated_nms_of_many_boxes(threshold: float) -> None:
    """More than are compared at a time, against the definition."""
    n = 200
    centre, size = rand(n, 2) * 20, rand(n, 2, seed=1).abs() * 10 + 1
    given = torch.cat([centre, size, rand(n, 1, seed=2)], 1)
    scores = torch.linspace(1, 0, n)
    iou = mmcv.ops.box_iou_rotated(given, given)
    want: list[int] = []
    for i in range(n):
        if not (iou[i, want] >= threshold).any():
            want.append(i)
    _, keep = mmcv.ops.nms_rotated(given, scores, threshold)
    assert keep.tolist() == want


def test_a_rotated_square_on_a_square() -> None:
    """An octagon: 2 (sqrt 2 - 1) of the unit square."""
    square = torch.tensor([[5.0, 5, 1, 1, 0]])
    turned = torch.tensor([[5.0, 5, 1, 1, torch.pi / 4]])
    octagon = 2 * (2**0.5 - 1)
    got = mmcv.ops.box_iou_rotated(square, turned)
    torch.testing.assert_close(
        got, torch.tensor([[octagon / (2 - octagon)]]), rtol=1e-5, atol=1e-5
    )
