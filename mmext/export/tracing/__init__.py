# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmdet's detectors as functions that ``torch.export`` can follow."""
