# Licensed under the Apache License, Version 2.0. See LICENSE.
"""`mmext report`: verdicts of plans, and ledgers of records."""
