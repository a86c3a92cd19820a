"""`python -m aetrain` is `aetrain`."""

from aetrain.cli import main

if __name__ == "__main__":  # the processes of a sweep import this module again
    main()
