"""Version of the layer schema that this package writes."""

SCHEMA_VERSION = "1.0"
