# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality terms and the hook that adds them to a loss."""
