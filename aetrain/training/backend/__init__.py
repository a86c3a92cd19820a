"""Settings of torch: matrix products, memory, precision, compilation."""
