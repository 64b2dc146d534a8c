# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The project on the CPU and on a pretended GPU; test_pretend_gpu.py runs it.

Results must be equal to the last bit. Exceptions are the convolution whose
kernels are generated, which a CPU computes in bands and a GPU at once, and
RoIAlign's average, which a CPU, a GPU and a GPU with deterministic algorithms
add in three orders.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv
import pretend_gpu
from backbone_checks import CASES, DWNET, STARNET, randomise
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from op_cases import op_cases, rand, run_case, tensors
from pretend_gpu import DEVICE, PretendTensor
from test_detectors import CONFIGS, build, narrow, predict, train_step
from torch.utils._pytree import tree_map

from mmext.engine.resume.exact_resume import ExactResumeHook
from mmext.models import (
    ECAAttention,
    FCAAttention,
    PluginResNet,
    SEAttention,
    SimpleFeaturePyramid,
    SRMAttention,
    StepNetResNet,
)
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.generated_conv import generated_depthwise_conv
from mmext.models.layers.inhomogeneous_conv import inhomogeneous_depthwise_conv
from mmext.models.layers.local_mlp import LocalMLP
from mmext.models.layers.pointwise import LayerNorm2d, PointwiseConv
from mmext.models.layers.scaled_batch_norm import add_scaled_batch_norm
from mmext.models.layers.spatial_gating_unit import SpatialGatingUnit
from mmext.models.layers.star_operation import StarOperation
from mmext.models.layers.step_adaptor import StepAdaptor
from mmext.regularizers import OrthogonalityHook

# Answered from versions, not computed.
INFO = {'get_compiler_version', 'get_compiling_cuda_version'}
BN = {'type': 'BN'}
SMALL = {'base_channels': 8, 'stem_channels': 8}
OPS = op_cases()
called: set[str] = set()


def record(name: str, op: Callable) -> Callable:
    def run(*args: Any, **kwargs: Any) -> Any:
        called.add(name)
        return op(*args, **kwargs)

    return run


for _name in mmcv._ext.__all__:
    setattr(mmcv._ext, _name, record(_name, getattr(mmcv._ext, _name)))


@pytest.fixture(autouse=True)
def _mmdet() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def check(
    go: Callable[[torch.device], list[Tensor]], tolerance: float = 0
) -> None:
    """Compares the results on both devices, with the same random numbers."""
    found = []
    for device in (torch.device('cpu'), DEVICE):
        torch.manual_seed(0)
        found.append([t.detach() for t in go(device)])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert isinstance(on_gpu, PretendTensor), 'it came back on the CPU'
        held = on_gpu.held
        if on_cpu.dtype == torch.bool:
            # mmdet pastes masks on a GPU in another order than on a CPU.
            assert on_cpu.shape == held.shape
            assert (on_cpu != held).double().mean() < 1e-3
            continue
        torch.testing.assert_close(
            held, on_cpu, rtol=tolerance, atol=tolerance, equal_nan=True
        )


def train(
    module: nn.Module, inputs: tuple, training: bool, device: torch.device
) -> list[Tensor]:
    """Forward and backward pass, and one step of SGD."""
    model = copy.deepcopy(module).to(device).train(training)
    given = tree_map(lambda t: t.clone().to(device).requires_grad_(), inputs)
    out = tensors(model(*given))
    sum(t.float().square().mean() for t in out).backward()
    weights = list(model.parameters())
    leaves = [*tensors(given), *weights]
    grads = [t.grad for t in leaves if t.grad is not None]
    if weights:
        torch.optim.SGD(weights, 0.1, momentum=0.9).step()
    return [*out, *grads, *weights, *model.buffers()]


def check_module(
    module: nn.Module,
    *inputs: Any,
    training: bool = True,
    tolerance: float = 0,
) -> None:
    check(partial(train, randomise(module), inputs, training), tolerance)


@pytest.mark.parametrize('name', OPS)
def test_op(name: str) -> None:
    tolerance = 1e-4 if 'roi_align avg' in name else 0
    check(partial(run_case, OPS[name]), tolerance)


def test_every_op_ran() -> None:
    assert called >= set(mmcv._ext.__all__) - INFO


@pytest.mark.parametrize('name', [n for n in OPS if 'roi_align' in n])
def test_deterministic_op(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``randomness=dict(deterministic=True)`` in a config."""
    module = mmcv._ext.roi_align
    ordered = record('ordered', module._ordered_gradient)
    monkeypatch.setattr(module, '_ordered_gradient', ordered)
    called.clear()
    torch.use_deterministic_algorithms(True)
    try:
        check(partial(run_case, OPS[name]), 1e-4)
    finally:
        torch.use_deterministic_algorithms(False)
    assert ('ordered' in called) == ('avg' in name)


X = rand(2, 16, 9, 12)
LAYERS = [
    (SEAttention(16), X),
    (ECAAttention(16), X),
    (FCAAttention(16, dct_size=7), X),
    (SRMAttention(16), X),
    (HomogeneousDynamicConv(16, 3, BN), X),
    (InhomogeneousDynamicConv(16, 3, 4, BN), X),
    (LocalMLP(16, 3, 4, 1), X),
    (SpatialGatingUnit(12, 3, True), X),
    (StarOperation(), X, X + 1),
    (StepAdaptor(16), X.mean((2, 3)), X.amax((2, 3))),
    (LayerNorm2d(16), X),
    (PointwiseConv(16, 4), X),
    (SimpleFeaturePyramid(16, 8, 5), (X,)),
]


@pytest.mark.parametrize(
    'layer', LAYERS, ids=lambda layer: type(layer[0]).__name__
)
def test_layer(layer: tuple) -> None:
    # A CPU has algorithms of its own for these; SRM's norm is over two images
    # here and amplifies rounding.
    own = {InhomogeneousDynamicConv: 1e-6, SRMAttention: 1e-5}
    check_module(*layer, tolerance=own.get(type(layer[0]), 0))


def test_inhomogeneous_depthwise_conv() -> None:
    inputs = [rand(2, 4, 8, 9), rand(2, 2, 9, 8, 9)]
    check(partial(run_case, (inhomogeneous_depthwise_conv, inputs, 2)), 1e-4)


def test_generated_depthwise_conv() -> None:
    inputs = [rand(2, 4, 8, 9), rand(2, 3, 8, 9), rand(18, 4)]
    conv = partial(generated_depthwise_conv, groups=2)
    check(partial(run_case, (conv, inputs, 3)), 1e-4)


class ScaledNorm(nn.Module):
    """A norm scaled by a function of its average, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return add_scaled_batch_norm(
            x, self.norm, y, lambda: y.mean((2, 3)), torch.sigmoid
        )


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('images', [1, 2])
def test_scaled_batch_norm(images: int, training: bool) -> None:
    check_module(ScaledNorm(), X[:images], training=training)


@pytest.mark.parametrize(
    'kind',
    [
        'SoftOrthogonality',
        'OffDiagonalOrthogonality',
        'DoubleSoftOrthogonality',
        'MutualCoherence',
        'SRIP',
        'OCNN',
        'SelfOrthogonality',
    ],
)
def test_regularizer(kind: str) -> None:
    """A step with the hook."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3))

        def forward(self, x: Tensor, mode: str = 'loss') -> dict:
            return {'loss': self.net(x).mean()}

    built = randomise(Net())

    def go(device: torch.device) -> list[Tensor]:
        model = copy.deepcopy(built).to(device)
        hook = OrthogonalityHook({'type': kind}, 'net.*')
        runner = SimpleNamespace(model=model, epoch=0, iter=3)
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        losses = model(rand(2, 3, 9, 9).to(device), mode='loss')
        sum(losses.values()).backward()
        hook.after_train_iter(runner, 0)
        return [*losses.values(), *(p.grad for p in model.parameters())]

    check(go)


SE = {'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}
BACKBONES = {name: case.build for name, case in CASES.items()} | {
    'StepNetResNet': partial(StepNetResNet, 18, **SMALL),
    'PluginResNet': partial(PluginResNet, 50, plugins=[SE], **SMALL),
}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', BACKBONES)
def test_backbone(name: str, training: bool) -> None:
    check_module(
        BACKBONES[name](),
        rand(2, 3, 64, 96),
        training=training,
        tolerance=1e-4 if 'inhomogeneous' in name else 0,
    )


def test_resumed_gradients() -> None:
    """Accumulated gradients of a checkpoint that was read on the CPU."""

    def go(device: torch.device) -> list[Tensor]:
        model = nn.Linear(3, 2).to(device)
        hook = ExactResumeHook()
        hook._drawn = 0
        hook._loaded = {
            'gradients': {'weight': torch.ones(2, 3), 'bias': torch.ones(2)}
        }
        loop = SimpleNamespace(dataloader=None)
        runner = SimpleNamespace(model=model, train_loop=loop, seed=0)
        hook.before_train(runner)
        model(rand(4, 3).to(device)).sum().backward()
        return [p.grad for p in model.parameters()]

    check(go)


@pytest.mark.parametrize(
    ('name', 'backbone', 'channels'),
    [
        (
            'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
            {'type': 'StarNet', 'arch': STARNET},
            [4, 8, 16, 32],
        ),
        (
            'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
            {'type': 'StepNetResNet', 'depth': 18, **SMALL},
            [8, 16, 32, 64],
        ),
        (
            'retinanet/retinanet_r50_fpn_1x_coco',
            {'type': 'DWNet', 'arch': DWNET, 'dynamic': 'homogeneous'},
            [8, 16, 32, 64],
        ),
    ],
)
def test_detector(name: str, backbone: dict, channels: list[int]) -> None:
    """Loss, backward pass, a step of SGD, prediction."""
    pretend_gpu.accept_as_index()
    called.clear()
    cfg = narrow(Config.fromfile(CONFIGS / f'{name}.py').model)
    cfg.backbone, cfg.neck.in_channels = ConfigDict(backbone), channels
    built = randomise(build(cfg))
    shapes = [(3, 96, 128), (3, 96, 128)]
    data = demo_mm_inputs(2, shapes, [2, 3], 80, with_mask='mask' in name)

    def go(device: torch.device) -> list[Tensor]:
        model, given = copy.deepcopy(built).to(device), copy.deepcopy(data)
        _, losses = train_step(model, given)
        weights = list(model.parameters())
        grads = [w.grad for w in weights if w.grad is not None]
        torch.optim.SGD(weights, 1e-4, momentum=0.9).step()
        results = []
        for image in (0, 1):
            found = predict(model, data, image).pred_instances
            assert len(found), 'no detections'
            results += [found.bboxes, found.scores, found.labels]
            if 'masks' in found:
                # mmdet pastes a box without area all over the image on a GPU.
                size = found.bboxes[:, 2:] - found.bboxes[:, :2]
                results.append(found.masks[(size > 1).all(1)])
        return [*tensors(losses), *grads, *weights, *results]

    check(go, 1e-4 if 'rcnn' in name else 0)
    assert ('roi_align_backward' in called) == ('rcnn' in name)
