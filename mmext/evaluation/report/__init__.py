# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tables, figures and pages of a comparison."""
