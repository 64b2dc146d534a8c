# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The one place that holds the version."""

__version__ = '0.1.0'
