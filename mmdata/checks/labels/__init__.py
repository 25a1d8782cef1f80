"""Labels against the world they describe, and against each other."""
