"""Metrics that are computed on request (`measures=`)."""
