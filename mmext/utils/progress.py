# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The bar that long commands show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmext.errors import printable


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """Shows a bar with the time left, until the block ends.

    Yields a function of what is being done and the share that is done, from 0
    to 1.
    """
    from rich.progress import Progress  # takes a while

    with Progress(transient=True) as bar:
        task = bar.add_task('', total=1.0)

        def show(what: str, share: float) -> None:
            bar.update(task, description=printable(what), completed=share)

        yield show
