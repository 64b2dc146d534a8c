# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be known to be wrong before anything is written.

Runs on the first process before the runner exists: the model is built and
thrown away and compared with the checkpoint and with the data, whose
annotations are read and whose images are looked for and sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mmengine.config import Config
from mmengine.registry import (
    init_default_scope,
)
from torch import nn

from mmext.checkpoints.files import newest_valid
from mmext.checkpoints.match import require_match, require_resumable
from mmext.checkpoints.read import load
from mmext.checks.config import (
    check_evaluators,
    check_heads,
    check_pipelines,
    find_splits,
)
from mmext.checks.data import check_data, remembered, verdict
from mmext.checks.findings import WARNING, Finding, Split, require
from mmext.checks.large_files import check_large, is_large
from mmext.checks.model import check_model
from mmext.checks.parts import check_parts
from mmext.models.build import build_model

#: What was looked at before the runner exists, or was not to be.
CHECKED: set[tuple[Split, ...]] = set()


def preflight(cfg: Config, stages: tuple[str, ...], data: bool = True) -> None:
    """Stops where a run of ``cfg`` cannot work, before it leaves a trace.

    Args:
        cfg: The config as the runner would get it.
        stages: Of ``train``, ``val``, ``test``: the loaders that are used.
        data: Whether to look into annotations and images. Default: True.

    Raises:
        UserError: What was found.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    check_parts(cfg, stages)
    splits = find_splits(cfg, stages)
    model = build_model(cfg.model)
    check_model(cfg, model, stages)
    if data:
        require_fit(cfg, model, splits)
    CHECKED.add(tuple(splits))
    checkpoint, resume = cfg.get('load_from'), cfg.get('resume')
    if resume and checkpoint is None:
        checkpoint = newest_valid(cfg.work_dir, lambda line: None)
        if checkpoint is None:
            checkpoint, resume = cfg.get('start_from'), False
    if checkpoint is not None:
        content = load(checkpoint)
        if resume:
            require_resumable(content, str(checkpoint))
        least = 1.0 if resume or 'test' in stages else 0.5
        require_match(model, content, str(checkpoint), least)


def require_fit(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    say: Callable[[str], object] = print,
) -> None:
    """Stops where the data, the model and the evaluators do not fit.

    Args:
        cfg: The config.
        model: Built from it.
        splits: Of :func:`~mmext.checks.config.find_splits`.
        say: Takes each warning. Default: prints it, as there is no log yet.

    Raises:
        UserError: With all errors.
    """
    found = check_run_data(cfg, model, splits, say)
    for finding in found:
        if finding.level == WARNING:
            text = f'{finding.split}: {finding.problem}. {finding.remedy}'
            say(f'warning: {text.strip()}')
    require(found)


def check_run_data(
    cfg: Config,
    model: nn.Module,
    splits: list[Split],
    say: Callable[[str], object] = print,
) -> list[Finding]:
    """What is wrong between the data, the model and the evaluators.

    A full check that tools/misc/check_data.py has made of the same files is
    taken over.
    """
    found = [
        *check_heads(cfg, model, splits),
        *check_evaluators(cfg, splits),
        *check_pipelines(cfg, splits),
    ]
    start = time.perf_counter()
    known = remembered(splits) if splits else []
    if known is not None:
        return found + known
    small = [split for split in splits if not is_large(split)]
    for split in splits:
        if split not in small:
            found += check_large(split)
    report = check_data(small)
    found += report.findings
    seconds = time.perf_counter() - start
    say(
        f'Data checked in {seconds:.1f} s: {verdict(found)}. '
        f'{len(report.facts)} images were read: tools/misc/check_data.py '
        'reads all and prints what was found.'
    )
    return found
