# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains and compares two detectors in minutes; behind ``make demo``."""
