# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks everything that can be checked before a run writes anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hotcoco import COCO
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import nn

from mmext.checkpoints.files import newest_complete
from mmext.checkpoints.frozen import require_trainable
from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_match, require_resumable
from mmext.checkpoints.pretrained import require_start
from mmext.checks.annotations import check_encoding, has_bom, id_zero
from mmext.checks.class_maps import check_class_maps, find_class_maps
from mmext.checks.config import (
    check_heads,
    check_pipelines,
    find_config_splits,
)
from mmext.checks.evaluators import check_evaluators
from mmext.checks.findings import ERROR, WARNING, Finding, Split, require
from mmext.checks.model import check_model
from mmext.checks.parts import check_parts
from mmext.checks.report import recall, verdict
from mmext.checks.splits import check_splits
from mmext.errors import UserError, did_you_mean
from mmext.models.build import build_from_config
from mmext.utils.random_state import random_state, random_state_kept
from mmext.utils.text import sentences, some

#: Bytes of an annotation file from which Python would parse it too slowly.
LARGE = 100 * 2**20
# hotcoco's codes that matter to a run; it has others.
CODES = {
    'duplicate_image_id': (ERROR, 'ids'),
    'duplicate_ann_id': (ERROR, 'ids'),
    'duplicate_category_id': (ERROR, 'ids'),
    'orphan_image_id': (ERROR, 'unknown ids'),
    'orphan_category_id': (ERROR, 'unknown ids'),
    'zero_dimensions': (ERROR, 'image sizes'),
    'degenerate_bbox': (WARNING, 'boxes degenerate'),
    'bbox_out_of_bounds': (WARNING, 'boxes over the edge'),
}


@dataclass(frozen=True)
class Preflight:
    """What the checks built and read, so that a run need not do it again.

    Args:
        model: The config's model, built after the config's seed was set, in
            evaluation mode.
        random_state: Of the generators after the model was built.
        checkpoint_path: The checkpoint that the run starts from, as the
            config or the work dir names it; None if there is none.
        checkpoint: Its content, on the CPU.
        resume: Whether the run resumes it, and does not only load weights.
        skipped: One line for every checkpoint of the work dir that was
            skipped because it is damaged.
        printed: What was printed before there was a log: a summary of the
            data checks, and warnings.
    """

    model: nn.Module
    random_state: dict[str, Any]
    checkpoint_path: str | None = None
    checkpoint: dict[str, Any] | None = None
    resume: bool = False
    skipped: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()


@random_state_kept()
def preflight(
    cfg: Config, stages: tuple[str, ...], data: bool = True
) -> Preflight:
    """Checks a config, its model, its data and its checkpoint.

    Nothing is written, and the generators of random numbers are left as they
    were. Call it on the first process, before the runner is built.

    Args:
        cfg: The config as the runner would get it.
        stages: Of ``train``, ``val``, ``test``: the loaders that are used.
        data: Whether to check annotations and images. Default: True.

    Raises:
        UserError: The run cannot work.
    """
    printed: list[str] = []

    def log(line: str) -> None:
        print(line)
        printed.append(line)

    init_default_scope(cfg.get('default_scope', 'mmdet'))
    check_parts(cfg, stages)
    splits = find_config_splits(cfg, stages)
    # The weights are those that Runner.__init__ would draw.
    set_random_seed(**cfg.get('randomness', {}))
    model = build_from_config(cfg)
    state = random_state()
    check_model(cfg, model, stages, log)
    if data:
        require_fit(cfg, model, splits, log)
        maps = find_class_maps(cfg, stages)
        require(check_class_maps(cfg, model, maps))
    path, resume = cfg.get('load_from'), bool(cfg.get('resume'))
    content: dict[str, Any] | None = None
    skipped: list[str] = []
    if resume and path is None:
        folder = _out_dir(cfg)
        newest = newest_complete(cfg.work_dir, skipped.append, folder)
        if newest is None:
            path, resume = cfg.get('start_from'), False
        else:
            path, content = newest
    if path is None:
        if 'train' in stages:
            require_trainable(model, cfg.model)
        return Preflight(
            model, state, skipped=tuple(skipped), printed=tuple(printed)
        )
    if content is None:
        content = load(path)
    if resume:
        require_resumable(content, str(path))
    least = 1.0 if resume or 'test' in stages else 0.5
    require_match(model, content, str(path), least)
    if least < 1:
        require_start(model, content, str(path))
    return Preflight(
        model,
        state,
        str(path),
        content,
        resume,
        tuple(skipped),
        tuple(printed),
    )


def _out_dir(cfg: Config) -> str | None:
    """Returns where a config wants its checkpoints, None for the work dir."""
    hooks = cfg.get('default_hooks') or {}
    return (hooks.get('checkpoint') or {}).get('out_dir')


def require_fit(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    log: Callable[[str], object] = print,
) -> None:
    """Checks that the data, the model and the evaluators fit each other.

    ``splits`` are those of :func:`~mmext.checks.config.find_config_splits`;
    ``log`` gets each warning, and prints because there is no log yet. Raises
    one `UserError` with all errors.
    """
    found = check_run_data(cfg, model, splits, log)
    for finding in found:
        if finding.level == WARNING:
            log(f'warning: {finding}. {finding.remedy}'.strip())
    require(found)


def check_run_data(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    log: Callable[[str], object] = print,
) -> list[Finding]:
    """Returns what is wrong between the data, the model and the evaluators.

    The result of a full check of the same files, which
    ``tools/misc/check_data.py`` keeps, is used instead of a new check.
    """
    found = [
        *check_heads(cfg, model, splits),
        *check_evaluators(cfg, splits),
        *check_pipelines(cfg, splits),
    ]
    start = time.perf_counter()
    known = recall(splits) if splits else []
    if known is not None:
        return found + known
    large = [s for s in splits if s.ann_file.stat().st_size > LARGE]
    for split in large:
        found += _check_large(split)
    report = check_splits([s for s in splits if s not in large])
    found += report.findings
    seconds = time.perf_counter() - start
    log(
        f'Checked the data in {seconds:.1f} s: {verdict(found)}. '
        f'{len(report.facts)} images were read; mmext check-data '
        'reads all of them and prints all findings.'
    )
    return found


def _check_large(split: Split) -> Iterator[Finding]:
    """Checks ids, boxes and class names in a file that Python reads slowly.

    hotcoco reads the 450 MB of COCO's training annotations in 1 to 2 seconds,
    Python in about 15. ``tools/misc/check_data.py`` makes all other checks.
    """
    if has_bom(split.ann_file):
        yield from check_encoding(split)
        return
    try:
        coco = COCO(str(split.ann_file))
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(
            f'{split.ann_file} is not a COCO annotation file: {error}',
            'Is the file complete? mmext check-data gives the reason.',
        ) from error
    report = coco.healthcheck()
    for found in report['errors'] + report['warnings']:
        if found['code'] not in CODES:
            continue
        level, check = CODES[found['code']]
        ids = found['affected_ids']
        yield split.finding(
            level,
            check,
            f'{split.ann_file}: {found["message"]} The first: {some(ids)}',
            'mmext check-data --fix DIR writes a corrected copy.',
            count=len(ids),
            fixable=True,
        )
    if 0 in coco.get_ann_ids():
        yield id_zero(split)
    names = [c['name'] for c in coco.load_cats(coco.get_cat_ids())]
    unknown = [n for n in split.classes if n not in names]
    if unknown:
        near = did_you_mean(unknown[0], names)
        yield split.error(
            'class names',
            f'class {unknown[0]!r} is not a category of {split.ann_file}',
            sentences(near, f'It has: {some(names, 20)}'),
            count=len(unknown),
        )
    yield split.note(
        'annotations',
        f'{split.ann_file} is large: ids, boxes and class names were checked; '
        'mmext check-data makes all checks, once',
    )
