# Licensed under the Apache License, Version 2.0. See LICENSE.
"""An AP gain as an experiment: plan, run, record, report."""
