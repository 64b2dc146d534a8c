# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Makes ops compute in float32 if their inputs are narrower.

torchvision's CPU kernels support neither bfloat16 nor NMS in half precision,
mmcv's do not support bfloat16, and sampling positions in half precision are
wrong by pixels. Every op here therefore widens its inputs, runs outside of
autocast, and rounds once, when the result is stored; float64 stays float64.
"""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def full_precision(op: Callable) -> Callable:
    """Runs ``op`` outside of autocast with its tensors in float32 or more."""

    @wraps(op)
    def run(*args: Any, **kwargs: Any) -> Any:
        values = [*args, *kwargs.values()]
        floats = [v for v in values if _is_float(v)]
        double = any(t.dtype == torch.float64 for t in floats)
        dtype = torch.float64 if double else torch.float32

        def widen(value: Any) -> Any:
            return value.to(dtype) if _is_float(value) else value

        device = floats[0].device.type if floats else 'cpu'
        with torch.autocast(device, enabled=False):
            return op(
                *[widen(a) for a in args],
                **{k: widen(v) for k, v in kwargs.items()},
            )

    return run


def writes(
    *names: str, keep_layout: bool = False
) -> Callable[[Callable], Callable]:
    """Turns a function into an op that stores its results in its arguments.

    ``names`` are the arguments that take the results, in the order in which
    the function returns them. The function does not read them. With
    ``keep_layout`` they take the memory of the results and so their strides;
    without it, they keep theirs.
    """

    def decorate(op: Callable) -> Callable:
        position = {n: i for i, n in enumerate(signature(op).parameters)}
        compute = full_precision(op)

        @wraps(op)
        def run(*args: Any, **kwargs: Any) -> None:
            results = compute(*args, **kwargs)
            if len(names) == 1:
                results = (results,)
            for name, result in zip(names, results, strict=True):
                i = position[name]
                target = kwargs[name] if name in kwargs else args[i]
                if keep_layout and result.shape == target.shape:
                    target.set_(result.to(target.dtype))
                else:
                    target.copy_(result)

        return run

    return decorate
