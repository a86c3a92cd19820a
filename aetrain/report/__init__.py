"""Pages and tables about runs that are over: they read run directories only, and never need torch."""
