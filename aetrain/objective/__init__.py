"""What training descends: the likelihood and a weighted sum of named penalties."""
