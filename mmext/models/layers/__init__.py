# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Building blocks, one a file."""
