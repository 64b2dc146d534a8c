# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in images and videos with a checkpoint or an exported file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from mmext.errors import UserError
from mmext.export.detector import Detector
from mmext.export.prediction.outputs import WRITERS, Found, draw
from mmext.export.prediction.sources import Source, find_sources
from mmext.export.prediction.views import detect_in_views, find_views
from mmext.utils.text import some


def predict_files(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    config: str | Path | None = None,
    out: str | Path = 'detections',
    formats: Sequence[str] = ('coco',),
    pictures: bool = False,
    score_thr: float = 0.3,
    slices: tuple[int, int] | None = None,
    overlap: float = 0.2,
    mirror: bool = False,
    fast: str | None = None,
    **options: Any,
) -> list[Found]:
    """Detects in images and videos and writes files.

    Args:
        model: An exported file, or a checkpoint.
        images: Images, videos, folders and patterns such as ``a/*.jpg``.
        config: The config of a checkpoint. Default: none.
        out: Folder of the results; it is created. Default: ``detections``.
        formats: Of ``'coco'``, ``'csv'`` and ``'yolo'``. Default: COCO.
        pictures: Write the images with boxes too. Default: False.
        score_thr: The lowest score of a detection, from 0 to 1. Default: 0.3.
        slices: Width and height of slices that are detected in too, for small
            objects in large images. Default: none.
        overlap: The least share that neighbouring slices have in common.
            Default: 0.2.
        mirror: Detect in mirror images too. Default: False.
        fast: Measure on the first image how a checkpoint runs fastest:
            ``"exact"``, or ``"bf16"`` for convolutions in bfloat16. Default:
            None, as it is.
        options: Of :class:`~mmext.export.detector.Detector`.

    Returns:
        What was found in each image.

    Raises:
        UserError: Nothing was written. If some images cannot be read, it is
            raised at the end, and the results of the others are written.
    """
    if unknown := {*formats} - {*WRITERS}:
        raise UserError(
            f'format {some(sorted(unknown))} is unknown',
            f'Use {some(WRITERS)}.',
        )
    if not 0 <= score_thr <= 1:
        raise UserError(
            f'score_thr is {score_thr:g}', 'Give a number from 0 to 1.'
        )
    if fast not in (None, 'exact', 'bf16'):
        raise UserError(f'fast is {fast!r}', 'Use exact or bf16.')
    if slices is not None:
        find_views((1, 1), slices, overlap)  # raises an error for bad numbers
    sources = find_sources(images)
    detector = Detector(model, config, **options)
    if fast is not None:
        pixels = (p for s in sources for _, p in s.read() if p is not None)
        table = detector.speed_up(
            [*itertools.islice(pixels, 1)], fast == 'bf16'
        )
        print(table.text())
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'results cannot be written to {out}: {error}',
            'Name another folder with --out.',
        ) from error
    found, failed = [], []
    total = sum(source.frames for source in sources)
    with Progress() as progress:
        task = progress.add_task('Detecting', total=total)
        for batch in _batches(sources, detector.batch_size):
            progress.advance(task, len(batch))
            failed += [name for name, pixels in batch if pixels is None]
            read = [(n, p) for n, p in batch if p is not None]
            views = [
                find_views(p.shape[:2], slices, overlap, mirror)
                for _, p in read
            ]
            results = detect_in_views(
                detector, [p for _, p in read], views, score_thr
            )
            for (name, pixels), good in zip(read, results, strict=True):
                found.append(Found(name, pixels.shape[:2], good))
                if pictures:
                    path = out / 'pictures' / name
                    draw(pixels, good, detector.classes, path)
    for name in formats:
        WRITERS[name](found, detector.classes, out)
    if failed:
        raise UserError(
            f'{len(failed)} of {len(found) + len(failed)} images could '
            f'not be read: {some(failed)}',
            f'Replace them. The results of the other images are in {out}.',
        )
    return found


def _batches(
    sources: Sequence[Source], size: int
) -> Iterator[list[tuple[str, np.ndarray | None]]]:
    frames = itertools.chain.from_iterable(s.read() for s in sources)
    while batch := list(itertools.islice(frames, size)):
        yield batch
