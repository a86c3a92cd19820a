"""Autoencoders: records, encoders and decoders, bottlenecks, layers, likelihoods."""
