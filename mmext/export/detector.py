# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.Detector`: a checkpoint or an exported file as a function."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmext.errors import UserError
from mmext.export.detections import Detections, Run
from mmext.export.exported import ExportedFile
from mmext.export.formats import SUFFIXES
from mmext.export.preparation import Preparation, find_preparation
from mmext.utils.images import is_bomb, read_pixels

if TYPE_CHECKING:
    from mmext.evaluation.report.table import Table

#: An image (H, W, 3), uint8, BGR, or the path of one.
Image = np.ndarray | str | Path


class Detector:
    """Detects objects in images, with a checkpoint or an exported file.

    Several threads may call it at once.

    Args:
        model: A file that ``mmext export`` wrote, or a checkpoint.
        config: The config of a checkpoint. Default: none, for a file.
        batch_size: How many images of one size run together. Default: 1.
        device: The device of a checkpoint. Default: ``'cpu'``.
        cfg_options: Changes of the config, as in `mmext.predict`. Default:
            none.
        trust_checkpoint: SHA-256 of files that may run any code. Default:
            none.

    Attributes:
        classes: The name of each label.

    Raises:
        UserError: The file cannot be used.

    Example:
        >>> detector = mmext.Detector('detector.onnx')
        >>> found = detector(['a.jpg', 'b.jpg'])[0]
        >>> detector.classes[found.labels[0]], found.scores[0], found.boxes[0]
        ('cell', 0.98, array([10.1, 20.5, 64.0, 72.9], dtype=float32))
    """

    def __init__(
        self,
        model: str | Path,
        config: str | Path | None = None,
        *,
        batch_size: int = 1,
        device: str = 'cpu',
        cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
        trust_checkpoint: str | Sequence[str] = (),
    ) -> None:
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}', 'Give 1 or more.')
        self.batch_size = batch_size
        trusted = contextlib.nullcontext()
        if trust_checkpoint:
            from mmext.checkpoints.trust import trusting

            trusted = trusting(trust_checkpoint)
        if Path(model).suffix in SUFFIXES.values():
            if config is not None or device != 'cpu':
                raise UserError(
                    f'{model} is an exported file, which needs no config and '
                    'runs on the CPU',
                    'Give only the file.',
                )
            with trusted:
                self._detect = ExportedFile(model)
            self.classes = self._detect.meta.classes
            self._prepare = self._detect.meta.preparation
            return
        if config is None:
            raise UserError(
                f'{model} is no exported file by its name, and a checkpoint '
                'needs its config',
                "--config CONFIG, in Python Detector('epoch_12.pth', "
                "'config.py'). Exported files end in "
                f'{" or ".join(SUFFIXES.values())}.',
            )
        from mmext.engine.predict import load_detector
        from mmext.export.eager import EagerDetector
        from mmext.utils.config import load_config

        cfg = load_config(config, cfg_options)
        with trusted:
            loaded = load_detector(cfg, model, device).model
        self._detect = EagerDetector(loaded)
        self.classes = loaded.dataset_meta['classes']
        self._prepare = find_preparation(
            loaded.cfg.test_dataloader.dataset.pipeline
        )

    def speed_up(self, images: Sequence[Image], bf16: bool = False) -> Table:
        """Runs a checkpoint in the fastest way that detects the same.

        Call it before several threads use the detector.

        Args:
            images: What is measured, as in a call.
            bf16: Compute convolutions in bfloat16, which changes boxes and
                scores a little. Default: False.

        Returns:
            What was measured, with differences and their limits.

        Raises:
            UserError: The model is an exported file.
        """
        if isinstance(self._detect, ExportedFile):
            raise UserError(
                f'{self._detect.path} is an exported file, which runs in one '
                'way only',
                'Give a checkpoint and its config, or export with '
                '--precision.',
            )
        from mmext.export.fast import fastest

        prepared = [self._prepare(read_image(image)) for image in images]
        self._detect, table = fastest(self._detect.model, prepared, bf16)
        return table

    def __call__(self, images: Image | Sequence[Image]) -> list[Detections]:
        """Detects in one or several images.

        Args:
            images: Arrays (H, W, 3) of type uint8, in OpenCV's order BGR, or
                paths.

        Returns:
            What was found in each of them.

        Raises:
            UserError: An image cannot be read, or has a size that an
                exported file does not take.
        """
        if isinstance(images, np.ndarray | str | Path):
            images = [images]
        return detect(self._detect, self._prepare, images, self.batch_size)


def detect(
    run: Run,
    prepare: Preparation,
    images: Sequence[Image],
    batch_size: int = 1,
) -> list[Detections]:
    """Detects in images of any sizes; those of one size run together.

    Args:
        run: Detects in prepared images of one size.
        prepare: Prepares an image.
        images: As in :class:`Detector`.
        batch_size: The largest batch. Default: 1.
    """
    prepared = [prepare(read_image(image)) for image in images]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(prepared):
        by_size.setdefault(image.pixels.shape, []).append(i)
    found: dict[int, Detections] = {}
    for places in by_size.values():
        for start in range(0, len(places), batch_size):
            batch = places[start : start + batch_size]
            results = run([prepared[i] for i in batch])
            found.update(zip(batch, results, strict=True))
    return [found[i] for i in range(len(prepared))]


def read_image(image: Image) -> np.ndarray:
    """Reads an image, or checks that an array is one."""
    if not isinstance(image, np.ndarray):
        path = Path(image)
        pixels = None if is_bomb(path) else read_pixels(path, cv2.IMREAD_COLOR)
        if pixels is None:
            raise UserError(
                f'image {path} cannot be read', 'Check the path and the file.'
            )
        return pixels
    shape = image.shape
    if image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise UserError(
            f'an image is an array {shape} of type {image.dtype}',
            'Give (height, width, 3) of type uint8, in the order BGR.',
        )
    if not image.size:
        raise UserError(f'an image has the shape {shape}', 'It is empty.')
    return image
