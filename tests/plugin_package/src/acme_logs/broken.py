"""A table that cannot be loaded, as after a half-finished upgrade."""

raise RuntimeError("acme_logs.broken is broken")
