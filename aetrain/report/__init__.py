"""Pages and tables about runs. They are made from run directories and need no torch."""
