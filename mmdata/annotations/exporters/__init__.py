"""One exporter per format: `write_<format>(path, layer, scene) -> Exported`."""
