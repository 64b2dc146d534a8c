# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stands in for mmcv's compiled ops where they are absent."""


def install() -> None:
    """Placeholder until the first op lands."""
