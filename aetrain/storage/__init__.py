"""The files of a run: directory, checkpoint, saved config, atomic writes, locks."""
