# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of data, configs and models before a run writes anything."""
