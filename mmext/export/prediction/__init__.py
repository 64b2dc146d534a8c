# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects in images and videos, and writes what was found."""
