"""Data sets, augmentation, noise, and batches on the device."""
