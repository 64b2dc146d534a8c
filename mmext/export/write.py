# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext.export_detector`: a checkpoint as a file that runs anywhere.

``torch.export`` follows the model, and a module of :mod:`mmext.export.formats`
writes the program. The file is compared with the model before it gets its
name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.trust import trusting
from mmext.engine.predict import load_detector, require_detector
from mmext.errors import UserError
from mmext.evaluation.report.table import Table
from mmext.export.average_precision import compare_ap, config_images
from mmext.export.bf16 import in_bf16
from mmext.export.describe import describe
from mmext.export.detections import Run
from mmext.export.detector import read_image
from mmext.export.eager import EagerDetector
from mmext.export.exported import ExportedFile
from mmext.export.formats import (
    PRECISIONS,
    SUFFIXES,
    onnx_format,
    openvino_format,
    torch_format,
)
from mmext.export.metadata import Metadata
from mmext.export.parity import Parity, compare_networks
from mmext.export.preparation import find_preparation, resized
from mmext.export.quantize import to_fp16, to_int8
from mmext.export.tracing.supported import require_supported
from mmext.export.tracing.trace import trace
from mmext.export.tracing.traced import TracedDetector
from mmext.utils import files
from mmext.utils.config import load_config
from mmext.utils.files import replacing
from mmext.utils.images import find_images
from mmext.utils.text import count, points, points_range, some
from mmext.utils.timing import in_turn

if TYPE_CHECKING:
    from mmext.evaluation.report.report import Report

#: Training images that the ranges of int8 are taken from.
CALIBRATION = 64
_ROUNDS = 5


@dataclass(frozen=True)
class Exported:
    """What :func:`export_detector` wrote.

    Attributes:
        path: The file in float32.
        digests: The SHA-256 of each file.
        meta: What the files say about themselves.
        parity: How far the detections of ``path`` are from the model's.
        milliseconds: Median time of an image, by the model (``'model'``) and
            by each file, in turn.
        reports: AP of the model and of all files, of boxes and maybe masks.
        note: Why there is no AP; empty if there is.
    """

    path: Path
    digests: Mapping[Path, str]
    meta: Metadata
    parity: Parity
    milliseconds: Mapping[str, float]
    reports: Sequence[Report]
    note: str

    def table(self) -> Table:
        """Returns size, time and AP of the model and each file."""
        header = ['file', 'MB', 'ms an image']
        rows = [['model', '-']]
        for path in self.digests:
            parts = {path, path.with_suffix('.bin')}
            size = sum(p.stat().st_size for p in parts if p.is_file())
            rows.append([path.name, f'{size / 1e6:.1f}'])
        for row in rows:
            row.append(f'{self.milliseconds[row[0]]:.1f}')
        for report in self.reports:
            header += [f'AP ({report.iou_type})', 'difference']
            model = report.comparisons[0].baseline['AP'][0]
            rows[0] += [points(model, sign=False), '-']
            for row, found in zip(rows[1:], report.comparisons, strict=True):
                change = found.differences['AP']
                row += [
                    points(found.candidate['AP'][0], sign=False),
                    f'{points(change.value)} {points_range(change.interval)}',
                ]
        notes = [f'{path}: SHA-256 {d}' for path, d in self.digests.items()]
        if self.note:
            notes.append(f'AP was not compared: {self.note}.')
        for report in self.reports[:1]:
            images = count(report.comparisons[0].images, 'image')
            notes.append(f'AP on {images}, 95% intervals.')
        return Table(header, rows, notes=notes)


def export_detector(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    file_format: str = 'onnx',
    precisions: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    opset: int = 18,
    images: str | Path | Sequence[str | Path] | None = None,
    check: int = 50,
    force: bool = False,
    sha256: str | None = None,
    cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
    trust_checkpoint: str | Sequence[str] = (),
    progress: Callable[[str, float], None] | None = None,
) -> Exported:
    """Writes a detector as a file that runs without MMDetection.

    The file takes images and returns boxes, scores, labels and masks:
    normalisation, padding and NMS are inside. It is written only if it finds
    what the model finds, on images of three sizes in batches of 1 and 3.

    Args:
        config: The config file of a detector.
        checkpoint: Its checkpoint, a file or URL.
        out: The file. Default: the config's name in the current folder.
        file_format: ``'onnx'``, ``'openvino'``, or ``'torch'`` for a program
            of ``torch.export``. Default: ``'onnx'``.
        precisions: Smaller files to write too, such as ``OUT.int8.onnx``:
            ``'fp16'`` (weights), ``'int8'`` (convolutions, with the ranges of
            maps of training images), or of ``'torch'`` ``'bf16'``
            (convolutions). Default: none.
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
        progress: Called with what is being done and the share that is done,
            from 0 to 1. Default: None.

    Raises:
        UserError: The detector cannot be exported, or the file disagrees
            with it. Nothing was written.

    Example:
        >>> done = mmext.export_detector('my_config.py', 'epoch_12.pth')
        >>> done.path, done.parity.box, done.parity.score
        (PosixPath('my_config.onnx'), 3.1e-05, 2.4e-07)
    """
    report = progress or (lambda what, share: None)
    _require(file_format, precisions, opset)
    suffix = SUFFIXES[file_format]
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
    require_detector(cfg)
    annotated = None
    if images is None:
        annotated = config_images(cfg, 'test', check)
        paths = annotated.paths
    else:
        given = [images] if isinstance(images, str | Path) else images
        paths = find_images(given, check)
    training: Sequence[Path] = ()
    if 'int8' in precisions:
        training = config_images(cfg, 'train', CALIBRATION).paths
    if sha256 is not None:
        require_sha256(checkpoint, sha256)
    report('reading the model', 0.0)
    with trusting(trust_checkpoint):
        loaded = load_detector(cfg, checkpoint, 'cpu')
    model = loaded.model.to(memory_format=torch.contiguous_format)
    require_supported(model)
    prepare = find_preparation(model.cfg.test_dataloader.dataset.pipeline)
    pictures = [read_image(path) for path in paths[:12]]
    fixed = (size[1], size[0]) if size else None
    shape = fixed or prepare(pictures[0]).pixels.shape[:2]

    def calibration() -> Iterator[np.ndarray]:
        for path in training:
            image = read_image(path)
            ready = resized(image, fixed) if fixed else prepare(image)
            yield ready.pixels

    report('following the model', 0.05)
    program, multiple = trace(TracedDetector(model), fixed)
    shape = tuple(max(n // multiple, 1) * multiple for n in shape)
    meta = describe(model, checkpoint, prepare, fixed, multiple)
    runs: dict[str, Run] = {'model': EagerDetector(model)}
    digests: dict[Path, str] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if file_format == 'torch':
            writers = _programs(program, meta, model, precisions)
        else:
            report('writing the ONNX file', 0.2)
            source = folder / 'float32.onnx'
            onnx_format.write(program, meta, source, opset)
            writers = _onnx_files(source, file_format, precisions, calibration)
        for n, (precision, write) in enumerate(writers):
            path = out.with_suffix(f'{precision}{suffix}')
            share = n / (1 + len(precisions))
            report(f'writing and trying {path.name}', 0.3 + 0.3 * share)
            part = _part(stack, path)
            write(part)
            digests[path] = files.sha256(part)
            with trusting(digests[path]):
                runs[path.name] = ExportedFile(part)
            if path != out:
                continue
            parity = compare_networks(
                runs['model'],
                runs[path.name],
                pictures,
                shape,
                multiple,
                fixed is not None,
            )
            if not parity.agrees and not force:
                raise UserError(
                    'the exported file disagrees with the model: '
                    + ' '.join(parity.lines()),
                    'It was not written. --force writes it.',
                )
        sample = [resized(pictures[0], shape)]
        work = {name: partial(run, sample) for name, run in runs.items()}
        milliseconds = {
            name: 1000 * statistics.median(seconds)
            for name, seconds in in_turn(work, _ROUNDS).items()
        }
        reports, note = [], 'images of a folder have no annotations'
        if annotated is not None:
            try:
                reports = compare_ap(
                    runs,
                    prepare,
                    annotated,
                    lambda what, share: report(what, 0.6 + 0.4 * share),
                )
                note = ''
            except UserError as error:  # predictions of a bad model
                note = error.problem
    return Exported(out, digests, meta, parity, milliseconds, reports, note)


def _require(file_format: str, precisions: Sequence[str], opset: int) -> None:
    if file_format not in SUFFIXES:
        raise UserError(
            f'format {file_format!r} is unknown', f'Use one of {[*SUFFIXES]}.'
        )
    known = PRECISIONS[file_format]
    if unknown := {*precisions} - {*known}:
        raise UserError(
            f'precision {some(sorted(unknown))} is unknown for the format '
            f'{file_format}',
            f'Use {some(known)}.',
        )
    if file_format != 'torch':
        onnx_format.require(opset)
    if file_format == 'openvino':
        openvino_format.require()


#: The part of a file's name before its suffix, and how to write the file.
Writers = Iterator[tuple[str, Callable[[Path], object]]]


def _programs(
    program: torch.export.ExportedProgram,
    meta: Metadata,
    model: nn.Module,
    precisions: Sequence[str],
) -> Writers:
    yield '', partial(torch_format.write, program, meta)
    for precision in precisions:
        reduced, _ = trace(TracedDetector(in_bf16(model)), meta.size)
        yield f'.{precision}', partial(torch_format.write, reduced, meta)


def _onnx_files(
    source: Path,
    file_format: str,
    precisions: Sequence[str],
    calibration: Callable[[], Iterator[np.ndarray]],
) -> Writers:
    is_onnx = file_format == 'onnx'
    finish = shutil.copyfile if is_onnx else openvino_format.write
    yield '', partial(finish, source)
    for precision in precisions:
        if precision == 'int8':
            path = source.with_name('int8.onnx')
            to_int8(source, path, calibration())
            yield '.int8', partial(finish, path)
        elif is_onnx:
            yield '.fp16', partial(to_fp16, source)
        else:
            yield '.fp16', partial(finish, source, fp16=True)


def _part(stack: contextlib.ExitStack, path: Path) -> Path:
    """Returns the temporary name of a file, which becomes ``path``."""
    part = path.with_name(f'.{os.getpid()}.{path.name}')
    if path.suffix == SUFFIXES['openvino']:
        weights = [p.with_suffix('.bin') for p in (path, part)]
        stack.enter_context(replacing(*weights))
    return stack.enter_context(replacing(path, part))
