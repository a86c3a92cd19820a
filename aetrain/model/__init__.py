"""Autoencoders: records, layers, likelihoods, bottlenecks, and the encoders and decoders of each family."""
