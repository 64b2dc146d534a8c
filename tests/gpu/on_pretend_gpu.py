# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs the project on the CPU and on a pretended GPU, and compares.

    PYTHONPATH=tests/helpers python tests/gpu/on_pretend_gpu.py \\
        parts|detectors OUT.json

OUT.json has the result of each case, by name: 'equal', or what differs.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv
import pretend_gpu
from backbone_checks import CASES, DWNET, STARNET, randomise
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from op_cases import op_cases, rand
from pretend_gpu import DEVICE, PretendTensor
from torch.utils._pytree import tree_leaves

from mmext.models.layers import (
    dynamic_depthwise_conv,
    generated_conv,
    inhomogeneous_conv,
    local_mlp,
    pointwise,
    scaled_batch_norm,
    spatial_gating_unit,
    star_operation,
    step_adaptor,
)
from mmext.models.necks.simple_feature_pyramid import SimpleFeaturePyramid
from mmext.regularizers import OrthogonalityHook

CPU = torch.device('cpu')
BN = {'type': 'BN'}
CALLED: set[str] = set()


def tensors(value: Any) -> list[Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


def compare(
    on_cpu: list[Tensor], on_gpu: list[Tensor], tolerance: float
) -> str:
    """Returns 'equal', or the first difference."""
    if len(on_cpu) != len(on_gpu):
        return f'{len(on_cpu)} tensors on the CPU, {len(on_gpu)} on the GPU'
    for i, (a, b) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        held = pretend_gpu.hold(b.detach())
        if held is b.detach() or not isinstance(b, PretendTensor):
            return f'tensor {i} of {len(on_cpu)} came back on the CPU'
        a = a.detach()
        if a.dtype != held.dtype or a.shape != held.shape:
            return f'tensor {i} of {len(on_cpu)} is of another kind'
        if a.dtype == torch.bool:
            # mmdet pastes masks on a GPU in another order than on a CPU.
            same = (a != held).double().mean() < 1e-3
        elif not a.is_floating_point() or not tolerance:
            same = torch.equal(a.nan_to_num(), held.nan_to_num())
        else:
            same = torch.allclose(a, held, tolerance, tolerance)
        if not same:
            furthest = (a.double() - held.double()).abs()
            return (
                f'tensor {i} of {len(on_cpu)} differs by up to '
                f'{furthest.max():.1e} at {(furthest > 0).double().mean():.1%}'
            )
    return 'equal'


def outcome(name: str, go: Callable[[torch.device], list[Tensor]]) -> str:
    """Runs a case on both devices, with the same random numbers.

    Results must be equal to the last bit. Exceptions are the convolution
    whose kernels are generated, which a CPU computes in bands and a GPU at
    once, and deterministic RoIAlign, which has another order on a GPU.
    """
    rounded = ('inhomogeneous', 'generated', 'deterministic')
    tolerance = 1e-4 if any(part in name for part in rounded) else 0
    found = []
    for device in (CPU, DEVICE):
        torch.manual_seed(0)
        try:
            found.append(go(device))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            path = [
                f'{Path(f.filename).name}:{f.lineno}'
                for f in frames
                if '/torch/' not in f.filename
            ]
            kind = type(error).__name__
            return f'{device}: {kind}: {error} ({" > ".join(path[-4:])})'
    return compare(*found, tolerance)


def of_function(
    function: Callable, inputs: list[Tensor], leaves: int
) -> Callable[[torch.device], list[Tensor]]:
    def go(device: torch.device) -> list[Tensor]:
        given = [t.clone().to(device) for t in inputs]
        for tensor in given[:leaves]:
            tensor.requires_grad_()
        out = tensors(function(*given))
        if not leaves:
            return out
        sum(t.square().sum() for t in out if t.requires_grad).backward()
        return out + [t.grad for t in given[:leaves]]

    return go


def of_module(
    module: nn.Module, *inputs: Tensor, training: bool = True
) -> Callable[[torch.device], list[Tensor]]:
    """Forward and backward pass, and one step of SGD."""

    def go(device: torch.device) -> list[Tensor]:
        model = copy.deepcopy(module).to(device).train(training)
        given = [t.clone().to(device).requires_grad_() for t in inputs]
        out = tensors(model(*given))
        sum(t.float().square().mean() for t in out).backward()
        weights = list(model.parameters())
        grads = [w.grad for w in (*given, *weights) if w.grad is not None]
        if weights:
            torch.optim.SGD(weights, 0.1, momentum=0.9).step()
        return [*out, *grads, *weights, *model.buffers()]

    return go


def of_regularizer(cfg: dict) -> Callable[[torch.device], list[Tensor]]:
    """A step with the hook."""
    net = randomise(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, mode: str = 'loss') -> dict:
            return {'loss': self.net(x).mean()}

    def go(device: torch.device) -> list[Tensor]:
        model = copy.deepcopy(Net()).to(device)
        hook = OrthogonalityHook(cfg, 'net.*')
        runner = SimpleNamespace(model=model, epoch=0, iter=3)
        hook.before_train(runner)
        hook.before_train_iter(runner, 0)
        losses = model(rand(2, 3, 9, 9).to(device), mode='loss')
        sum(losses.values()).backward()
        hook.after_train_iter(runner, 0)
        return [*losses.values(), *(p.grad for p in model.parameters())]

    return go


def resumed_gradients(device: torch.device) -> list[Tensor]:
    """Accumulated gradients of a checkpoint that was read on the CPU."""
    from mmext.engine.resume.exact_resume import ExactResumeHook

    model = nn.Linear(3, 2).to(device)
    hook = ExactResumeHook()
    hook._drawn = 0
    hook._loaded = {
        'gradients': {'weight': torch.ones(2, 3), 'bias': torch.ones(2)}
    }
    loop = SimpleNamespace(dataloader=None)
    hook.before_train(SimpleNamespace(model=model, train_loop=loop, seed=0))
    model(rand(4, 3).to(device)).sum().backward()
    return [p.grad for p in model.parameters()]


def parts() -> Iterator[tuple[str, Callable[[torch.device], list[Tensor]]]]:
    for name, case in op_cases().items():
        go = of_function(*case)
        yield f'op: {name}', go
        if name.startswith('roi_align'):
            yield f'op: {name}, deterministic', deterministic(go)
    yield from layer_cases()
    for cfg in (
        'SoftOrthogonality',
        'OffDiagonalOrthogonality',
        'DoubleSoftOrthogonality',
        'MutualCoherence',
        'SRIP',
        'OCNN',
        'SelfOrthogonality',
    ):
        yield f'regularizer: {cfg}', of_regularizer({'type': cfg})
    x = rand(2, 3, 64, 96)
    for name, case in CASES.items():
        model = randomise(case.build())
        yield f'backbone: {name}', of_module(model, x)
        yield f'backbone: {name}, eval', of_module(model, x, training=False)
    small = {'base_channels': 8, 'stem_channels': 8}
    for kind in ('StepNetResNet', 'PluginResNet'):
        cfg = {'type': kind, 'depth': 18, **small}
        if kind == 'PluginResNet':
            se = {'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}
            cfg |= {'depth': 50, 'plugins': [se]}
        model = randomise(MODELS.build(cfg))
        yield f'backbone: {kind}', of_module(model, x)
        yield f'backbone: {kind}, eval', of_module(model, x, training=False)
    yield 'resume: accumulated gradients', resumed_gradients


def deterministic(function: Callable) -> Callable:
    """As ``randomness=dict(deterministic=True)`` in a config."""

    def run(device: torch.device) -> list[Tensor]:
        torch.use_deterministic_algorithms(True)
        try:
            return function(device)
        finally:
            torch.use_deterministic_algorithms(False)

    return run


def layer_cases() -> Iterator[tuple[str, Callable]]:
    x = rand(2, 16, 9, 12)
    built: dict[str, tuple] = {
        kind: (MODELS.build({'type': kind, 'in_channels': 16, **options}), x)
        for kind, options in {
            'SEAttention': {},
            'ECAAttention': {},
            'FCAAttention': {'dct_size': 7},
            'SRMAttention': {},
        }.items()
    }
    conv = dynamic_depthwise_conv
    built |= {
        'HomogeneousDynamicConv': (conv.HomogeneousDynamicConv(16, 3, BN), x),
        'InhomogeneousDynamicConv': (
            conv.InhomogeneousDynamicConv(16, 3, 4, BN),
            x,
        ),
        'LocalMLP': (local_mlp.LocalMLP(16, 3, 4, 1), x),
        'SpatialGatingUnit': (
            spatial_gating_unit.SpatialGatingUnit(12, 3, True),
            x,
        ),
        'StarOperation': (star_operation.StarOperation(), x, x + 1),
        'StepAdaptor': (
            step_adaptor.StepAdaptor(16),
            x.mean((2, 3)),
            x.amax((2, 3)),
        ),
        'LayerNorm2d': (pointwise.LayerNorm2d(16), x),
        'PointwiseConv': (pointwise.PointwiseConv(16, 4), x),
        'SimpleFeaturePyramid': (
            SimpleFeaturePyramid(16, 8, 5),
            x[None].transpose(0, 1).flatten(0, 1),
        ),
    }
    for name, (module, *inputs) in built.items():
        module = randomise(module)
        if name == 'SimpleFeaturePyramid':
            module = OnOneMap(module)
        yield f'layer: {name}', of_module(module, *inputs)
    norm = randomise(nn.BatchNorm2d(16))
    for training in (True, False):
        for images in (1, 2):
            name = f'layer: add_scaled_batch_norm, {images}, {training}'
            module = ScaledNorm(norm)
            yield name, of_module(module, x[:images], training=training)
    yield (
        'layer: inhomogeneous_depthwise_conv',
        of_function(
            inhomogeneous_conv.inhomogeneous_depthwise_conv,
            [rand(2, 4, 8, 9), rand(2, 2, 9, 8, 9)],
            2,
        ),
    )
    yield (
        'layer: generated_depthwise_conv',
        of_function(
            lambda x, h, k: generated_conv.generated_depthwise_conv(
                x, h, k, 2
            ),
            [rand(2, 4, 8, 9), rand(2, 3, 8, 9), rand(18, 4)],
            3,
        ),
    )


class OnOneMap(nn.Module):
    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.neck((x,))


class ScaledNorm(nn.Module):
    """A norm scaled by a function of its average, with a shortcut."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return scaled_batch_norm.add_scaled_batch_norm(
            x, self.norm, y, lambda: y.mean((2, 3)), torch.sigmoid
        )


def narrowed(name: str, backbone: dict, channels: list[int]) -> ConfigDict:
    """Returns a detector of MMDetection with a small backbone and heads."""
    from mmengine.config import Config

    cfg = Config.fromfile(
        Path(sys.modules['mmdet'].__file__).parent / f'.mim/configs/{name}.py'
    ).model
    cfg.backbone = ConfigDict(backbone)
    cfg.neck.update(in_channels=channels, out_channels=16)
    for part in ('rpn_head', 'bbox_head'):
        if part in cfg:
            cfg[part].update(in_channels=16, feat_channels=16)
    cfg.test_cfg.score_thr = 0.0
    if 'roi_head' in cfg:
        head = cfg.roi_head
        head.bbox_roi_extractor.out_channels = 16
        head.bbox_head.update(in_channels=16, fc_out_channels=32)
        if 'mask_head' in head:
            head.mask_roi_extractor.out_channels = 16
            head.mask_head.update(in_channels=16, conv_out_channels=16)
        cfg.train_cfg.rpn_proposal.max_per_img = 60
        cfg.train_cfg.rcnn.sampler.num = 32
        cfg.test_cfg.rpn.max_per_img = 40
        cfg.test_cfg.rcnn.score_thr = 0.0
    return cfg


def of_detector(
    cfg: ConfigDict, masks: bool
) -> Callable[[torch.device], list[Tensor]]:
    """Loss, backward pass, a step of SGD, prediction."""
    from mmdet.testing import demo_mm_inputs

    with torch.random.fork_rng():
        torch.manual_seed(1)
        built = randomise(MODELS.build(cfg))
    shapes = [(3, 96, 128), (3, 96, 128)]

    def go(device: torch.device) -> list[Tensor]:
        model = copy.deepcopy(built).to(device).train()
        data = demo_mm_inputs(2, shapes, [2, 3], 80, with_mask=masks)
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        total, _ = model.parse_losses(losses)
        total.backward()
        weights = list(model.parameters())
        grads = [w.grad for w in weights if w.grad is not None]
        torch.optim.SGD(weights, 1e-4, momentum=0.9).step()
        model.eval()
        with torch.no_grad():
            found = model(
                **model.data_preprocessor(data, False), mode='predict'
            )
        results = []
        for one in found:
            instances = one.pred_instances
            assert len(instances), 'no detections'
            results += [instances.bboxes, instances.scores, instances.labels]
            if masks:
                # mmdet pastes a box without area all over the image on a GPU.
                size = instances.bboxes[:, 2:] - instances.bboxes[:, :2]
                results.append(instances.masks[(size > 1).all(1)])
        return [*tensors(losses), *grads, *weights, *results]

    return go


def detectors() -> Iterator[tuple[str, Callable]]:
    pretend_gpu.accept_as_index()
    MessageHub.get_current_instance().update_info_dict({'iter': 0, 'epoch': 0})
    yield (
        'Faster R-CNN, StarNet',
        of_detector(
            narrowed(
                'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
                {'type': 'StarNet', 'arch': STARNET},
                [4, 8, 16, 32],
            ),
            False,
        ),
    )
    yield (
        'Mask R-CNN, StepNet',
        of_detector(
            narrowed(
                'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
                {
                    'type': 'StepNetResNet',
                    'depth': 18,
                    'base_channels': 8,
                    'stem_channels': 8,
                },
                [8, 16, 32, 64],
            ),
            True,
        ),
    )
    yield (
        'RetinaNet, DWNet',
        of_detector(
            narrowed(
                'retinanet/retinanet_r50_fpn_1x_coco',
                {'type': 'DWNet', 'arch': DWNET, 'dynamic': 'homogeneous'},
                [8, 16, 32, 64],
            ),
            False,
        ),
    )


@contextmanager
def recorded() -> Iterator[None]:
    """Records the names of the ops that run."""

    def record(name: str, op: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            CALLED.add(name)
            return op(*args, **kwargs)

        return run

    for name in mmcv._ext.__all__:
        setattr(mmcv._ext, name, record(name, getattr(mmcv._ext, name)))
    yield


def main() -> None:
    kind, out = sys.argv[1:]
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    with recorded():
        cases = {'parts': parts, 'detectors': detectors}[kind]()
        results = {name: outcome(name, go) for name, go in cases}
    Path(out).write_text(
        json.dumps({'results': results, 'called': sorted(CALLED)}, indent=1)
    )
    # PyTorch's thread of the device would stop the process with an error.
    os._exit(0)


if __name__ == '__main__':
    main()
