# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A generated COCO-format data set of drawn shapes."""
