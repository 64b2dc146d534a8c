# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Exact resume: seeds, interrupts and what checkpoints do not store."""
