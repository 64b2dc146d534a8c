# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Parameters, FLOPs, latency and memory of a model."""
