# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Helpers that at least two packages use."""
