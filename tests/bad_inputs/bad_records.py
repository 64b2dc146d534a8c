# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Records that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from bad_input import World, mistake
from records import bomb, damage, make_record

from mmext.experiments.records.record import write_record

bad = partial(mistake, 'Records')


def record(title: str, write: Callable[[Path], object], *quotes: str) -> None:
    """Registers a file that is given as a record."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        write(Path('record.npz'))
        world.tool('report', 'record.npz')


def changed(
    title: str, change: Callable[[dict, dict], object], sealed: bool = True
) -> None:
    """Registers a change of the description or the arrays of a record."""
    record(title, partial(damage, change=change, sealed=sealed))


def truncated(path: Path) -> None:
    write_record(path, make_record())
    path.write_bytes(path.read_bytes()[:1000])


record('a record that does not exist', lambda path: None)
record('a truncated record', truncated, 'truncated or damaged')
record('a text file instead of a record', lambda p: p.write_text('AP 0.5'))
record(
    'another file of arrays instead of a record',
    lambda path: np.savez(path, a=np.arange(3)),
)
record(
    'a record with an object to unpickle',
    lambda path: np.savez(path, a=np.array([{}], object)),
)
record('a record that unpacks to 2 GiB', bomb)
changed('a record of another version', lambda d, a: d.update(version=2))
changed(
    'a record with another seed than it was written with',
    lambda d, a: d.update(seed=2),
    sealed=False,
)
changed(
    'a record with a training time of NaN',
    lambda d, a: d.update(train_seconds=float('nan')),
    sealed=False,
)
changed(
    'a record with fewer images than results',
    lambda d, a: d.update(images=d['images'][:3]),
)
changed('a record without one of its arrays', lambda d, a: a.pop('ignored'))
changed(
    'a record whose arrays have different lengths',
    lambda d, a: a.update(hit=a['hit'][:, 1:]),
)
changed('a record of an unknown task', lambda d, a: d.update(task='mAP'))
