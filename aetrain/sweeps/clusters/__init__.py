"""Runs of a sweep as jobs of an engine that distributes them over machines: Slurm and Ray."""
