# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loading of images: fewer copies, and JPEGs decoded at a smaller size."""

from mmext.datasets.loading.packing import PackChannelsLastInputs
from mmext.datasets.loading.reduced import DecodeAndResize, LoadEncodedImage

__all__ = ['DecodeAndResize', 'LoadEncodedImage', 'PackChannelsLastInputs']
