# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What is installed, whether it works, and what mends it.

People run this when something is broken, so it needs nothing but the standard
library: ``tools/misc/doctor.py`` loads the package by its path, without
importing ``mmext``, and everything that may crash runs in another process.
"""

from .findings import OK, PROBLEM, Finding, as_text
from .machine import examine_machine
from .packages import examine_packages
from .processes import examine_imports, examine_self_test

__all__ = ['PROBLEM', 'Finding', 'as_text', 'examine']


def examine(self_test: bool = True) -> list[Finding]:
    """All that can be said about this environment.

    Args:
        self_test: Whether to run ops and a training step. Default: True.
    """
    imports = examine_imports()
    found = [*examine_machine(), *examine_packages(), *imports]
    works = any(f.name == 'mmext' and f.state == OK for f in imports)
    if self_test and works:
        found += examine_self_test()
    return found
