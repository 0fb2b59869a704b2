"""What the engine counts and measures, for Prometheus."""
