# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the arguments that configs give to models."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mmext.errors import UserError, did_you_mean


def choose(name: str, value: str, choices: Collection[str]) -> str:
    """``value`` if it is one of ``choices``.

    Raises:
        UserError: It is not; names the argument and the nearest choice.
    """
    if value not in list(choices):
        raise UserError(
            f'{name}={value!r} is not known; it is one of {list(choices)}.',
            did_you_mean(str(value), choices),
        )
    return value


def resolve_arch(arch: str | dict, arch_settings: dict[str, dict]) -> dict:
    """The settings of an arch by name, or given as a dict with those keys.

    Raises:
        UserError: An unknown name, or a dict with other keys.
    """
    if not isinstance(arch, dict):
        return arch_settings[choose('arch', arch, arch_settings)]
    keys = sorted(next(iter(arch_settings.values())))
    if sorted(arch) != keys:
        raise UserError(
            f'arch is a dict with the keys {sorted(arch)}.',
            f'As a dict it has exactly {keys}; by name it is one of '
            f'{list(arch_settings)}.',
        )
    return arch


def reduced(channels: int, ratio: int) -> int:
    """Channels of a hidden layer, ``channels // ratio`` and at least 1.

    Raises:
        UserError: A ratio below 1.
    """
    if ratio < 1:
        raise UserError(
            f'ratio={ratio}: a hidden layer has channels / ratio channels.',
            'Use 1 or more; 16 is usual.',
        )
    return max(channels // ratio, 1)


def resolve_indices(
    out_indices: int | Sequence[int], num_outputs: int
) -> tuple[int, ...]:
    """Rising, non-negative output indices; negative ones count back.

    Raises:
        UserError: One that is out of range or out of order, or none.
    """
    given = (
        [out_indices] if isinstance(out_indices, int) else list(out_indices)
    )
    allowed = range(-num_outputs, num_outputs)
    indices = [i % num_outputs for i in given if i in allowed]
    if not given or len(indices) < len(given):
        raise UserError(
            f'out_indices={out_indices} names an output that is not there.',
            f'Outputs are 0 to {num_outputs - 1}; -1 is the last.',
        )
    if indices != sorted(set(indices)):
        raise UserError(
            f'out_indices={out_indices} must rise, each output named once.',
            f'Write {tuple(sorted(set(indices)))}.',
        )
    return tuple(indices)
