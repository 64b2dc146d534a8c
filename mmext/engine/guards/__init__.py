# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Hooks that stop a run when its data, loss or gradients are wrong."""
