"""What can be done with a finished run: a file for each mode of the command but training."""
