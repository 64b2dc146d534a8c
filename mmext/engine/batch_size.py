# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds a batch size by training steps, which are undone."""

from __future__ import annotations

import copy
import gc
import re
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.benchmark import timer

from mmext.engine.trial import trial
from mmext.errors import UserError
from mmext.utils.machine import free_memory

#: The share of the memory that a step may use: images of an epoch differ.
MOST_MEMORY = 0.9
#: How many times as many images a second a larger batch must bring on a CPU.
LEAST_GAIN = 1.05
LARGEST = 1024
#: Samples among which the largest image is the one that is tried.
_LOOKED_AT = 16
_OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|ALLOC_FAILED"
)
GIB = 2**30


def set_batch_size(cfg: Config, images: int) -> None:
    """Sets the images in a process's batch and scales the learning rate.

    The rate of the config is meant for ``auto_scale_lr.base_batch_size``
    images, or for the batch that the config had.
    """
    loader = cfg.train_dataloader
    cfg.auto_scale_lr = {
        'base_batch_size': loader.batch_size,
        **(cfg.get('auto_scale_lr') or {}),
        'enable': True,
    }
    loader.batch_size = images


def require_batch_size(cfg: Config, images: int | str) -> None:
    """Raises ``UserError`` if the batch size of a config cannot be set."""
    if images != 'auto' and (not isinstance(images, int) or images < 1):
        raise UserError(
            f'--batch-size is {images!r}',
            'Give the images in the batch of a process, or auto.',
        )
    if not (cfg.get('train_dataloader') or {}).get('batch_size'):
        raise UserError(
            'train_dataloader of the config has no batch_size',
            'Omit --batch-size: batch_sampler decides.',
        )


def find_batch_size(cfg: Config, log: Callable[[str], object] = print) -> int:
    """Returns a batch size that suits the machine.

    On a GPU, it is the largest whose step uses at most 90 % of the memory. On
    a CPU, where a larger batch mostly costs memory, it is doubled as long as
    the steps process at least 5 % more images a second.

    Args:
        cfg: The config, which is not changed.
        log: Gets a line for each size that is tried.

    Raises:
        UserError: Not one image fits, or a step fails.
    """
    with trial(cfg) as runner:
        dataset = runner.train_dataloader.dataset
        some = min(_LOOKED_AT, len(dataset))
        samples = (dataset[i * len(dataset) // some] for i in range(some))
        sample = max(samples, key=_pixels)
        on_gpu = next(runner.model.parameters()).is_cuda
        search = _largest_on_gpu if on_gpu else _fast_on_cpu
        most = min(LARGEST, len(dataset))
        found = search(runner, sample, most, log)
    if not found:
        raise UserError(
            'not even a batch of one image fits the memory',
            'Resize images to fewer pixels, use --amp, or save memory with '
            'model.backbone.with_cp=True.',
        )
    log(f'Batch size: {found} (auto)')
    return found


def _largest_on_gpu(
    runner: Runner, sample: Any, most: int, log: Callable[[str], object]
) -> int:
    """Doubles until a step does not fit; then tries the size between."""
    device = next(runner.model.parameters()).device
    total = torch.cuda.get_device_properties(device).total_memory

    def fits(images: int) -> bool:
        torch.cuda.reset_peak_memory_stats(device)
        done = _seconds(runner, sample, images, steps=1) is not None
        used = torch.cuda.max_memory_reserved(device)
        text = f'{used / GIB:.2f} of {total / GIB:.2f} GiB'
        log(f'batch of {images}: {text if done else "out of memory"}')
        return done and used <= MOST_MEMORY * total

    best = 0
    for images in _doubling(most):
        if not fits(images):
            between = best + best // 2
            return between if between > best and fits(between) else best
        best = images
    return best


def _fast_on_cpu(
    runner: Runner, sample: Any, most: int, log: Callable[[str], object]
) -> int:
    """Doubles as long as this gains speed and memory is left."""
    best, before = 0, float('inf')
    free, start = free_memory(), _peak_memory()
    for images in _doubling(most):
        needed = 2 * (_peak_memory() - start)  # twice that of the last size
        if needed > MOST_MEMORY * free:
            log(f'batch of {images}: would need {needed / GIB:.1f} GiB')
            break
        seconds = _seconds(runner, sample, images, steps=3)
        if seconds is None:
            log(f'batch of {images}: out of memory')
            break
        log(f'batch of {images}: {seconds / images:.3f} s an image')
        if seconds / images * LEAST_GAIN > before:
            break
        best, before = images, seconds / images
    return best


def _doubling(most: int) -> Iterator[int]:
    images = 1
    while images <= most:
        yield images
        images *= 2


def _seconds(
    runner: Runner, sample: Any, images: int, steps: int
) -> float | None:
    """Returns the time of the fastest step; None if memory runs out."""
    times = []
    try:
        for _ in range(steps):
            batch = [copy.deepcopy(sample) for _ in range(images)]
            batch = runner.train_dataloader.collate_fn(batch)
            start = timer()  # waits for the GPU
            runner.model.train_step(batch, runner.optim_wrapper)
            times.append(timer() - start)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(times) == steps:
        return min(times)
    # Out of the `except`, whose traceback would keep the tensors.
    runner.optim_wrapper.zero_grad()
    gc.collect()
    torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that there is no more memory."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or _OUT_OF_MEMORY.search(str(error)) is not None


def _pixels(sample: Any) -> int:
    """Returns the values in the image of a sample; 0 of another layout."""
    image = sample.get('inputs') if isinstance(sample, dict) else None
    return image.numel() if isinstance(image, torch.Tensor) else 0


def _peak_memory() -> int:
    """Returns the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
