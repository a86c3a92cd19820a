"""Where images come from: data sets, noise, batches on the device."""
