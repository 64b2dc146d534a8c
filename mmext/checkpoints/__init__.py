# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checkpoints: read safely, write completely, match with a model, publish."""
