# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Memory in pages of 2 MiB instead of 4 KiB, for programs that train.

A training step on the CPU allocates the same large tensors again and again.
In small pages, their addresses cost a good part of the step's time
(``benchmarks/results/huge_pages.md``). glibc asks for large ones if a variable
of the environment says so when the program starts:
https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html
"""

from __future__ import annotations

import os
import sys

VARIABLE, VALUE = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'


def use_huge_pages() -> None:
    """Starts this program again with huge pages, as the same process.

    Call it before anything is written. It returns if the program has them,
    if the user has set other tunables, if PyTorch is loaded, or if the system
    is not Linux. Systems without glibc 2.35 or huge pages ignore the variable.
    """
    if (
        sys.platform != 'linux'
        or VARIABLE in os.environ
        or 'torch' in sys.modules
    ):
        return
    sys.stdout.flush()
    environment = {**os.environ, VARIABLE: VALUE}
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, environment)
