# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads other annotation formats and writes COCO's."""
