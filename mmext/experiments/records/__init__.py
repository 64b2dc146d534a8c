# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What a run leaves, enough to recompute every interval."""
