"""The modes of the command except training, a file for each."""
