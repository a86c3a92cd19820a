"""Initialise or pretrain the weights before training."""
