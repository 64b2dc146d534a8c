# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks a data set before a training: ``mmext.check_data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmext.checks.boxes import Boxes
from mmext.checks.findings import NOTE, Finding, Split
from mmext.checks.fix import fixed_files, write_fixed
from mmext.checks.layouts import find_folder_splits
from mmext.checks.masks import check_masks
from mmext.checks.report import DataReport, keep
from mmext.checks.splits import check_splits
from mmext.errors import UserError
from mmext.utils.machine import cores


def check_data(
    data: str | Path,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = False,
    sample: bool = False,
    workers: int | None = None,
    fix: str | Path | None = None,
    cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
    progress: bool = False,
) -> DataReport:
    """Checks annotations and images, and a config's heads against them.

    A folder is checked without importing torch or MMDetection.

    Args:
        data: A folder (COCO, YOLO, VOC) or a config file (``.py``), of which
            the training and validation data are checked.
        classes: Categories to use, in any order; for a folder only. Default:
            all.
        masks: Whether every annotation must have a mask; for a folder only.
            Default: False.
        sample: Whether to decode a sample of the images, as a run does before
            it starts, and not all of them. Default: False.
        workers: Threads that decode images. Default: the number of CPUs.
        fix: A folder for corrected copies of the annotation files, with links
            to the images. Default: none are written.
        cfg_options: See :func:`~mmext.utils.config.load_config`; for a config
            only.
        progress: Whether to show a progress bar on stderr. Default: False.

    Returns:
        The findings, and ``print(report)`` prints a table. Without
        ``sample``, runs use them until a file changes, and stop if
        ``report.errors`` is not empty.

    Raises:
        UserError: There are no data to check, a file cannot be read as COCO,
            or a file in ``fix`` exists already.

    Example:
        >>> report = check_data('my_data', fix='corrected')  # doctest: +SKIP
        >>> [f.problem for f in report.errors]  # doctest: +SKIP
        ['none of the 3 images of ... is in ...']
    """
    data = Path(data)
    if data.suffix == '.py':
        splits, found = _of_config(data, cfg_options)
    else:
        splits, _ = find_folder_splits(data, classes, masks)
        found = []
    files = {} if fix is None else fixed_files(splits, Path(fix))
    if workers is None:
        workers = cores()
    report = check_splits(splits, not sample, workers, progress)
    if not sample:
        keep(report)
    notes = _mask_notes(report) if data.suffix != '.py' else ()
    report = replace(report, findings=(*found, *report.findings, *notes))
    if fix is None:
        return report
    fixed = write_fixed(report, files, Path(fix))
    corrected = [replace(s, ann_file=files[s.name]) for s in splits]
    remaining = check_splits(corrected).errors if fixed else ()
    return replace(
        report, fixed=fixed, fixed_in=Path(fix), remaining=remaining
    )


def _mask_notes(report: DataReport) -> Iterator[Finding]:
    """Yields what is wrong with masks that were not asked for."""
    for split in report.splits:
        content = report.contents[split.name]
        if split.masks or not content['annotations']:
            continue
        for finding in check_masks(content, split, Boxes(content).frames):
            problem = f'{finding.problem} (with --masks an error or warning)'
            yield replace(finding, level=NOTE, problem=problem, fixable=False)


def _of_config(
    file: Path, options: Mapping[str, Any] | Sequence[str] | None
) -> tuple[list[Split], list[Finding]]:
    from mmengine.registry import init_default_scope

    from mmext.checks.class_maps import check_class_maps, find_class_maps
    from mmext.checks.config import check_heads, find_config_splits
    from mmext.checks.evaluators import check_evaluators
    from mmext.models.build import build_from_config
    from mmext.utils.config import load_config

    cfg = load_config(file, options)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    splits = find_config_splits(cfg, ('train', 'val'))
    maps = find_class_maps(cfg, ('train', 'val'))
    if not splits and not maps:
        raise UserError(
            f'{file} names no COCO annotations and no class maps',
            'Data sets of other formats, and generated ones, are not checked.',
        )
    model = build_from_config(cfg)
    return splits, [
        *check_class_maps(cfg, model, maps, None),
        *check_heads(cfg, model, splits),
        *check_evaluators(cfg, splits),
    ]
