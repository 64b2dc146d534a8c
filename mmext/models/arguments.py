# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of the arguments that configs give to models.

Each raises `UserError` with the argument, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from mmext.errors import UserError, did_you_mean

T = TypeVar('T')


def choose(name: str, value: str, choices: Collection[str]) -> str:
    """Returns ``value`` if it is one of ``choices``."""
    if value not in list(choices):
        raise UserError(
            f'{name}={value!r} is not known; it is one of {list(choices)}.',
            did_you_mean(str(value), choices),
        )
    return value


def resolve_arch(arch: str | dict, arch_settings: dict[str, dict]) -> dict:
    """Returns the settings of an arch, a name or a dict with their keys."""
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
    """Returns the channels of a hidden layer, at least 1."""
    if ratio < 1:
        raise UserError(
            f'ratio={ratio}: a hidden layer has channels / ratio channels.',
            'Use 1 or more; 16 is usual.',
        )
    return max(channels // ratio, 1)


def resolve_indices(
    out_indices: int | Sequence[int], num_outputs: int
) -> tuple[int, ...]:
    """Returns indices from 0 on, in rising order; -1 is the last output."""
    given = (
        [out_indices] if isinstance(out_indices, int) else list(out_indices)
    )
    allowed = range(-num_outputs, num_outputs)
    indices = [i % num_outputs for i in given if i in allowed]
    if not given or len(indices) < len(given):
        raise UserError(
            f'out_indices={out_indices} names an output that does not exist.',
            f'Outputs are 0 to {num_outputs - 1}; -1 is the last.',
        )
    if indices != sorted(set(indices)):
        raise UserError(
            f'out_indices={out_indices} must rise and name each output once.',
            f'Write {tuple(sorted(set(indices)))}.',
        )
    return tuple(indices)


def per_stage(name: str, value: T | Sequence[T], num_stages: int) -> list[T]:
    """Returns an argument's value for each stage; one may serve all."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * num_stages
    if len(value) != num_stages:
        raise UserError(
            f'{name}={list(value)} has {len(value)} entries.',
            f'Give one value, or one for each of the {num_stages} stages.',
        )
    return list(value)
