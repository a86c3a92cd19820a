"""Self-checks (`mode=check`): known answers, and the exact resume of a killed run."""
