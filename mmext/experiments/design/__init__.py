# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext plan`: noise, power, training time, and the plan."""
