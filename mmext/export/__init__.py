# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detectors as files that run without MMDetection."""
