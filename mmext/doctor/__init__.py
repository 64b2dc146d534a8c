# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks what is installed, and whether it works.

The doctor runs where packages are missing or broken, so it needs the standard
library alone, and everything that can crash runs in another process.
"""

from __future__ import annotations

from mmext.doctor.machine import check_machine
from mmext.doctor.packages import check_packages
from mmext.doctor.processes import check_imports, run_self_test
from mmext.doctor.result import PROBLEM, Result, as_text

__all__ = ['PROBLEM', 'Result', 'as_text', 'examine']


def examine(self_test: bool = True) -> list[Result]:
    """Checks the machine, the packages, their imports and mmcv's ops.

    The self-test runs ops and a training step if all imports work.
    """
    imports = check_imports()
    results = [*check_machine(), *check_packages(), *imports]
    broken = any(r.part == 'Imports' and r.state == PROBLEM for r in imports)
    if self_test and not broken:
        results += run_self_test()
    return results
