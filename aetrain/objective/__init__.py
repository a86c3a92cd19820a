"""The objective of training: the negative log-likelihood and a weighted sum of named penalties."""
