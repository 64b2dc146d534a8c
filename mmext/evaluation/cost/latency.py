# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Latency, throughput and memory of a detector, without the data loader."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.benchmark import timer

from mmext.evaluation.cost.complexity import empty_samples, input_shape
from mmext.models.build import build_from_config
from mmext.utils.machine import processor
from mmext.utils.modules import require_device
from mmext.utils.text import count


@dataclass(frozen=True)
class Latency:
    """Time of a forward pass with post-processing.

    Args:
        batch: Number of images.
        seconds: Median time of a batch.
        peak_bytes: Peak of the allocated GPU memory; None on a CPU.
        device: What it was measured on, as a sentence.
    """

    batch: int
    seconds: float
    peak_bytes: int | None
    device: str

    @property
    def images_per_second(self) -> float:
        return self.batch / self.seconds


def measure_latency(
    model: nn.Module,
    shape: tuple[int, int],
    batch: int = 1,
    warm_up: int = 5,
    repeats: int = 20,
) -> Latency:
    """Measures the time of ``model.predict`` on random images.

    Args:
        model: An mmdet detector, on its device.
        shape: Height and width in pixels.
        batch: Number of images. Default: 1.
        warm_up: Number of batches that are not measured. Default: 5.
        repeats: Number of batches that are measured. Default: 20.
    """
    device = next(model.parameters()).device
    gpu = device.type == 'cuda'
    images = torch.randn(batch, 3, *shape, device=device)
    samples = empty_samples(shape, batch)
    training = model.training
    model.eval()
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    with torch.no_grad():
        for _ in range(warm_up + repeats):
            start = timer()  # waits for the GPU
            model.predict(images, samples)
            times.append(timer() - start)
    model.train(training)
    return Latency(
        batch=batch,
        seconds=statistics.median(times[warm_up:]),
        peak_bytes=torch.cuda.max_memory_allocated(device) if gpu else None,
        device=f'Speed: {device_name(device)}, {shape[0]}x{shape[1]}, '
        f'median of {repeats}.',
    )


def device_name(device: torch.device) -> str:
    """Returns the name of a GPU, or the CPU with its number of threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{processor()}, {count(torch.get_num_threads(), "thread")}'


def config_latency(
    cfg: Config,
    batches: Sequence[int] = (1, 16),
    shape: tuple[int, int] | None = None,
    repeats: int = 20,
    device: str | None = None,
) -> list[Latency]:
    """Builds the model of a config with random weights and measures it.

    With random weights, as many proposals pass as the test settings allow, so
    the result is close to the largest latency of a trained detector. There is
    one measurement for each number of images. The default shape is that of
    the test pipeline, and the default device the first GPU, or the CPU.

    Raises:
        UserError: The model cannot be built, or the device does not exist.
    """
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    require_device(device)
    model = build_from_config(cfg).to(device)
    shape = shape or input_shape(cfg)
    return [measure_latency(model, shape, b, repeats=repeats) for b in batches]
