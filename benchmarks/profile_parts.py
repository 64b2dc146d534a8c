# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Where the time of a detector's training step goes, by part and direction.

``torch.profiler`` sees operators. An operator of the backward pass belongs to
the part of the detector whose forward pass made it: both have the same
sequence number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from operator import attrgetter
from typing import Any

import mmcv
import mmcv.ops
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

#: Path of an object in a detector -> its method, and the part's name.
PARTS = {
    'backbone': ('forward', 'backbone'),
    'neck': ('forward', 'neck'),
    'rpn_head': ('loss_and_predict', 'RPN'),
    'rpn_head.assigner': ('assign', 'targets'),
    'bbox_head': ('loss', 'head'),
    'bbox_head.assigner': ('assign', 'targets'),
    'roi_head': ('loss', 'RoI head'),
    'roi_head.bbox_assigner': ('assign', 'targets'),
    'roi_head.bbox_roi_extractor': ('forward', 'RoIAlign'),
}
NAMES = (
    *('backbone', 'neck', 'RPN', 'head', 'targets', 'NMS', 'RoIAlign'),
    *('RoI head', 'optimizer', 'rest'),
)
PREFIX = 'part: '
NODE = 'autograd::engine::evaluate_function'


def named(call: Callable, name: str) -> Callable:
    """Returns a function whose time a profile counts to a part."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + name):
            return call(*args, **kwargs)

    return run


@contextmanager
def _recorded(model: nn.Module, optimizer_wrapper: object) -> Iterator[None]:
    """Names the parts to the profiler inside of the block."""
    places = [(optimizer_wrapper, 'step', 'optimizer')]
    places.append((mmcv._ext, 'nms', 'NMS'))
    for path, (method, name) in PARTS.items():
        try:
            places.append((attrgetter(path)(model), method, name))
        except AttributeError:
            continue  # this detector has no such part

    before = [
        (owner, key, owner.__dict__.get(key)) for owner, key, _ in places
    ]
    for owner, key, name in places:
        setattr(owner, key, named(getattr(owner, key), name))
    try:
        yield
    finally:
        for owner, key, own in before:
            delattr(owner, key) if own is None else setattr(owner, key, own)


def seconds_by_part(
    step: Callable[[], Any], model: nn.Module, optimizer_wrapper: object
) -> dict[str, list[float]]:
    """Returns forward and backward seconds of each part of a step.

    The optimizer and what belongs to no part, such as hooks and copies of
    images, have no backward time.
    """
    with (
        _recorded(model, optimizer_wrapper),
        profile(activities=[ProfilerActivity.CPU]) as found,
        record_function(PREFIX + 'rest'),
    ):
        step()
    events = found.events()
    parts = sorted(
        (e for e in events if e.name.startswith(PREFIX)),
        key=lambda e: (e.time_range.start, -e.time_range.end),
    )
    starts = [e.time_range.start for e in parts]

    def part_at(time: float) -> str:
        for i in range(bisect_right(starts, time) - 1, -1, -1):
            if parts[i].time_range.end >= time:
                return parts[i].name.removeprefix(PREFIX)
        return 'rest'

    forward: Counter[str] = Counter()
    open_parts: list = []
    for event in parts:
        seconds = event.time_range.elapsed_us() / 1e6
        while open_parts and (
            open_parts[-1].time_range.end < event.time_range.end
        ):
            open_parts.pop()
        if open_parts:
            forward[open_parts[-1].name.removeprefix(PREFIX)] -= seconds
        forward[event.name.removeprefix(PREFIX)] += seconds
        open_parts.append(event)
    nodes = [e for e in events if e.name.startswith(NODE)]
    turn = min(e.time_range.start for e in nodes)
    # The last operator of a number made the node; those before it made none.
    made_by = {
        e.sequence_nr: part_at(e.time_range.start)
        for e in sorted(events, key=lambda e: e.time_range.start)
        if e.sequence_nr >= 0 and e.time_range.start < turn
    }
    backward: Counter[str] = Counter()
    for node in nodes:
        part = made_by.get(node.sequence_nr, 'rest')
        backward[part] += node.time_range.elapsed_us() / 1e6
    forward['rest'] -= sum(backward.values())
    return {
        name: [round(forward[name], 4), round(backward[name], 4)]
        for name in NAMES
        if forward[name] or backward[name]
    }
