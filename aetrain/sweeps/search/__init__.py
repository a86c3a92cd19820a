"""Search settings: propose trials, run them as a sweep, and stop those that a study prunes."""
