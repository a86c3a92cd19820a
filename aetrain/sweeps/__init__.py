"""Launch the runs of a sweep and summarise them."""
