# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext run`: the runs of a plan, on this machine or a cluster."""
