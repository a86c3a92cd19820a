"""Evaluation: the standard metrics of every run, metrics on request, and diagnostics."""
