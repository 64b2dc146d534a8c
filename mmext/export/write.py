# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.export_detector`: a checkpoint as a file that runs anywhere.

``torch.export`` follows the model, and ``torch.onnx`` translates the program.
The file is compared with the model before it gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmext.checkpoints.read import require_sha256, trusting
from mmext.engine.predict import load_detector
from mmext.errors import UserError
from mmext.export.average_precision import compare_ap, test_images
from mmext.export.describe import describe
from mmext.export.detector import read_image
from mmext.export.eager import EagerDetector
from mmext.export.exported import ExportedFile
from mmext.export.metadata import Metadata
from mmext.export.parity import Parity, compare_networks
from mmext.export.preparation import find_preparation
from mmext.export.supported import require_supported
from mmext.export.trace import trace
from mmext.export.traced import TracedDetector
from mmext.export.writers import require_format, write
from mmext.utils import files
from mmext.utils.config import load_config
from mmext.utils.files import replacing
from mmext.utils.images import find_images
from mmext.utils.text import count, points, points_range

if TYPE_CHECKING:
    from mmext.evaluation.report.report import Report


@dataclass(frozen=True)
class Exported:
    """What :func:`export_detector` wrote.

    Attributes:
        path: The file.
        digest: Its SHA-256.
        meta: What the file says about itself.
        parity: How far its detections are from those of the model.
        reports: AP of both, of boxes and maybe of masks.
        note: Why there is no AP; empty if there is.
    """

    path: Path
    digest: str
    meta: Metadata
    parity: Parity
    reports: Sequence[Report]
    note: str

    def lines(self) -> list[str]:
        """Returns the result as sentences."""
        text = self.parity.lines()
        for report in self.reports:
            text.append(_ap_line(report))
        if self.note:
            text.append(f'AP was not compared: {self.note}.')
        megabytes = self.path.stat().st_size / 1e6
        text.append(f'{self.path}: {megabytes:.1f} MB')
        text.append(f'SHA-256: {self.digest}')
        return text


def export_detector(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    file_format: str = 'onnx',
    size: tuple[int, int] | None = None,
    opset: int = 18,
    images: str | Path | Sequence[str | Path] | None = None,
    check: int = 50,
    force: bool = False,
    sha256: str | None = None,
    cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
    trust_checkpoint: str | Sequence[str] = (),
) -> Exported:
    """Writes a detector as a file that runs without MMDetection.

    The file takes images and returns boxes, scores, labels and masks:
    normalisation, padding and NMS are inside. It is written only if it finds
    what the model finds, on images of three sizes in batches of 1 and 3.

    Args:
        config: The config file of a detector.
        checkpoint: Its checkpoint, a file or URL.
        out: The file. Default: the config's name in the current folder.
        file_format: ``'onnx'``, or ``'torch'`` for a program of
            ``torch.export``. Default: ``'onnx'``.
        size: Width and height of the only images that the file takes.
            Default: any.
        opset: The version of ONNX's operators. Default: 18.
        images: Images or folders that file and model are compared on.
            Default: those that the config tests on, with AP.
        check: How many of them. Default: 50.
        force: Write the file even if it disagrees. Default: False.
        sha256: The first 8 or more digits of the checkpoint's SHA-256.
            Default: not checked.
        cfg_options: Changes of the config, as in `mmext.predict`. Default:
            none.
        trust_checkpoint: SHA-256 of checkpoints that may run any code.
            Default: none.

    Raises:
        UserError: The detector cannot be exported, or the file disagrees
            with it. Nothing was written.

    Example:
        >>> done = mmext.export_detector('my_config.py', 'epoch_12.pth')
        >>> done.path, done.parity.box, done.parity.score
        (PosixPath('my_config.onnx'), 3.1e-05, 2.4e-07)
    """
    suffix = require_format(file_format, opset)
    out = Path(out or Path(config).with_suffix(suffix).name).expanduser()
    if out.suffix != suffix:
        raise UserError(
            f'{out} does not end in {suffix}',
            f'Files of --format {file_format} do: {out.stem}{suffix}',
        )
    if check < 1:
        raise UserError(f'check is {check}', 'Give 1 or more images.')
    if size and min(size) < 1:
        raise UserError(
            f'size is {size[0]}x{size[1]}', 'Give pixels: width and height.'
        )
    cfg = load_config(config, cfg_options)
    annotated = None
    if images is None:
        annotated = test_images(cfg, check)
        paths = annotated.paths
    else:
        given = [images] if isinstance(images, str | Path) else images
        paths = find_images(given, check)
    if sha256 is not None:
        require_sha256(checkpoint, sha256)
    with trusting(trust_checkpoint):
        loaded = load_detector(cfg, checkpoint, 'cpu')
    model = loaded.model.to(memory_format=torch.contiguous_format)
    require_supported(model)
    prepare = find_preparation(model.cfg.test_dataloader.dataset.pipeline)
    pictures = [read_image(path) for path in paths[:12]]
    fixed = (size[1], size[0]) if size else None
    program, multiple = trace(TracedDetector(model).eval(), fixed)
    meta = describe(model, checkpoint, prepare, fixed, multiple)
    eager = EagerDetector(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out, out.with_name(f'.{os.getpid()}.{out.name}')) as part:
        write(program, meta, part, opset)
        digest = files.sha256(part)
        with trusting(digest):
            file = ExportedFile(part)
        shape = fixed or prepare(pictures[0]).pixels.shape[:2]
        parity = compare_networks(
            eager, file, pictures, shape, multiple, fixed is not None
        )
        if not parity.agrees and not force:
            raise UserError(
                'the exported file disagrees with the model: '
                + ' '.join(parity.lines()),
                'It was not written. --force writes it.',
            )
        reports, note = [], 'images of a folder have no annotations'
        if annotated is not None:
            try:
                reports = compare_ap(eager, file, prepare, annotated)
                note = ''
            except UserError as error:  # predictions of a bad model
                note = error.problem
    return Exported(out, digest, meta, parity, reports, note)


def _ap_line(report: Report) -> str:
    (found,) = report.comparisons
    model, file = found.baseline['AP'][0], found.candidate['AP'][0]
    difference = found.differences['AP']
    return (
        f'AP ({report.iou_type}) on {count(found.images, "image")}: '
        f'{points(model, sign=False)} of the model, '
        f'{points(file, sign=False)} of the file, difference '
        f'{points(difference.value)} {points_range(difference.interval)}.'
    )
