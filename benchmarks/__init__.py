"""Measuring. The console comes first: it tells OpenMP, before torch loads it, not to spin while it waits."""

import pipelines.runtime.exit_codes  # noqa: F401
