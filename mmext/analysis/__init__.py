# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Experiments and measurements on models; no other room imports them."""
