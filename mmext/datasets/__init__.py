# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Data sets: the COCO reader, converters and the generated shapes."""
