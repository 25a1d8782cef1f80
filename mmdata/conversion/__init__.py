"""From recordings to episodes: finding logs, splitting, writing, batches."""
