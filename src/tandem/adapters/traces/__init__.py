"""Runs and attempts as spans of OpenTelemetry."""
