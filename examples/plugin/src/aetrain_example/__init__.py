"""An example of a package that adds an option to aetrain."""
