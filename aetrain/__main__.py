"""`python -m aetrain` is `aetrain`."""

from aetrain.cli import main

main()
