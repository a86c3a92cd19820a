"""Train many runs of one architecture as one vectorised model (`hydra/launcher=packed`).

A pack is a set of runs whose weights are stacked. The rest of the package does not import this one.
"""
