"""Helpers that belong to no part of an experiment."""
