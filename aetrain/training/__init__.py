"""The loop, optimizers and schedules, pretraining, checkpoints."""
