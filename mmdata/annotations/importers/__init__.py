"""One importer per format: `read_<format>(path, scene, *, layer) -> Imported`."""
