"""From a checked config to components to one training run."""
