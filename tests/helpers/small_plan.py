# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Plans for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmext.experiments.plan import Plan, PlannedSide


def small_plan(**changes: Any) -> Plan:
    """Returns a plan of two sides with two seeds each."""
    values: dict[str, Any] = {
        'claim': 'B has a higher AP than A',
        'task': 'bbox',
        'gain': 1.0,
        'margin': None,
        'alpha': 0.05,
        'power': 0.8,
        'scope': 'data set',
        'seed_sd': {'value': 0.2, 'source': 'assumed'},
        'image_se': {'value': 0.9, 'images': 5, 'source': 'assumed'},
        'looks': (2,),
        'data': {'sha256': '0' * 64, 'images': 5, 'groups': None},
        'sides': sides('a.py', 'b.py'),
        'options': {},
    }
    return Plan(**{**values, **changes})


def sides(
    a: str | Path, b: str | Path, sha256: str = '0' * 64, seeds: int = 2
) -> tuple[PlannedSide, ...]:
    """Returns the sides ``A`` and ``B x``."""
    return tuple(
        PlannedSide(name, str(config), sha256, tuple(range(first, last)))
        for name, config, first, last in (
            ('A', a, 1, 1 + seeds),
            ('B x', b, 101, 101 + seeds),
        )
    )
