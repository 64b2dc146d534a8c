# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The configs of a plan: read, hashed, compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmext.checks.layouts import use_data_folder
from mmext.errors import UserError
from mmext.evaluation.side_checks import differences
from mmext.experiments.plan import Plan, PlannedSide
from mmext.utils.config import READ, load_config

#: Parts that the claim is about, or on which no result depends.
_NO_DIFFERENCE = {'model', 'work_dir', 'visualizer', 'vis_backends'}
_NO_DIFFERENCE |= {'custom_imports', 'log_level', 'log_processor', 'env_cfg'}
_NO_DIFFERENCE |= {'randomness', 'num_workers', 'persistent_workers'}
_NO_DIFFERENCE |= {'find_unused_parameters', 'experiment_name', 'launcher'}


def config_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of what a config says, with all that it inherits."""
    text = json.dumps(_plain(load_config(path).to_dict()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Returns what JSON can hold, equal in every process."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if value is None or isinstance(value, str | int | float):
        return value
    text = getattr(value, '__qualname__', None) or repr(value)
    return re.sub(r'\b0x[0-9a-f]+\b', '', text)  # where it is in memory


def side_config(plan: Plan, side: PlannedSide) -> Config:
    """Returns the config of a side with the plan's options and data.

    Raises:
        UserError: The config differs from that of the plan.
    """
    found = config_sha256(side.config)
    if found != side.sha256:
        raise UserError(
            f'{side.config} ({side.name}) is not the config of the plan: its '
            f'SHA-256 is {found[:12]}, planned was {side.sha256[:12]}',
            'Restore it, with the files that it inherits and the environment '
            'variables that it reads, or write a new plan.',
        )
    return planned_config(side.config, plan.options, plan.folder)


def planned_config(
    path: str | Path,
    options: dict[str, Any],
    folder: str | Path | None = None,
) -> Config:
    """Reads a config, merges options, and uses a folder's data if given.

    Options that are text are parsed: YAML has no tuples, so that a plan holds
    ``(640, 640)`` as text.
    """
    cfg = load_config(path, [f'{k}={v}' for k, v in options.items()])
    if folder is not None:
        use_data_folder(cfg, folder)
    return cfg


def unplanned_differences(a: Config, b: Config) -> list[str]:
    """Returns what differs between two configs apart from the model.

    Only what a runner reads counts, not the variables of a config file.
    """
    read = [
        {k: v for k, v in c.to_dict().items() if k in READ} for c in (a, b)
    ]
    return [*differences(*read, _NO_DIFFERENCE)]
