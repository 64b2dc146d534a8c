# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Latency, throughput and memory of a detector, without the data loader."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmext.evaluation.cost.complexity import test_shape as detection_shape


@dataclass(frozen=True)
class Latency:
    """Time of a forward pass with post-processing.

    Args:
        batch: Images a batch.
        seconds: Median time of a batch.
        images_per_second: ``batch / seconds``.
        peak_bytes: Most memory allocated on the GPU, None on CPU.
        device: What it was measured on.
    """

    batch: int
    seconds: float
    images_per_second: float
    peak_bytes: int | None
    device: str


def measure_latency(
    model: nn.Module,
    shape: tuple[int, int],
    batch: int = 1,
    warm_up: int = 5,
    repeats: int = 20,
) -> Latency:
    """Times ``model.predict`` on random images of one shape.

    Args:
        model: An mmdet detector, on its device.
        shape: Height and width in pixels.
        batch: Images a batch. Default: 1.
        warm_up: Batches not counted. Default: 5.
        repeats: Batches counted. Default: 20.
    """
    from mmdet.structures import DetDataSample

    device = next(model.parameters()).device
    gpu = device.type == 'cuda'
    images = torch.randn(batch, 3, *shape, device=device)
    meta = {
        **dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), shape),
        'batch_input_shape': shape,
        'scale_factor': (1.0, 1.0),
    }
    samples = [DetDataSample(metainfo=meta) for _ in range(batch)]
    training = model.training
    model.eval()
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    with torch.no_grad():
        for i in range(warm_up + repeats):
            _wait(device)
            start = time.perf_counter()
            model.predict(images, samples)
            _wait(device)
            if i >= warm_up:
                times.append(time.perf_counter() - start)
    model.train(training)
    seconds = statistics.median(times)
    name = (
        torch.cuda.get_device_name(device)
        if gpu
        else f'{platform.processor() or "CPU"}, '
        f'{torch.get_num_threads()} threads'
    )
    return Latency(
        batch=batch,
        seconds=seconds,
        images_per_second=batch / seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if gpu else None,
        device=f'Speed: {name}, {shape[0]}x{shape[1]}, median of {repeats}.',
    )


def config_latency(
    cfg: Config,
    batches: tuple[int, ...] = (1, 16),
    shape: tuple[int, int] | None = None,
    repeats: int = 20,
) -> list[Latency]:
    """Builds a config's model with random weights and times it.

    Random weights let through as many proposals as the test settings allow,
    so this is close to the slowest a trained detector gets.

    Args:
        cfg: A detection config.
        batches: Images a batch, one measurement each. Default: 1 and 16.
        shape: Height and width in pixels. Default: the test pipeline's.
        repeats: Batches counted. Default: 20.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    if torch.cuda.is_available():
        model = model.cuda()
    shape = shape or detection_shape(cfg)
    return [measure_latency(model, shape, b, repeats=repeats) for b in batches]


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
