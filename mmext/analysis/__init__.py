# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Pure functions that measure models and tensors.

Import a module of this package by name: `import mmext` leaves it alone, for
the sake of matplotlib and of the optional scikit-learn.
"""
