# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Makes the data loaders of configs faster without changing their pixels."""

from __future__ import annotations

from typing import Any

#: Transform of a config -> one with the same result and fewer copies.
FASTER = {'PackDetInputs': 'PackChannelsLastInputs'}


def use_faster_transforms(config: Any) -> None:
    """Replaces transforms in (part of) the config of a loader."""
    if isinstance(config, dict):
        name = str(config.get('type')).removeprefix('mmdet.')
        if name in FASTER:
            config['type'] = FASTER[name]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            use_faster_transforms(part)
