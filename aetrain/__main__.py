"""`python -m aetrain` is `aetrain`."""

from aetrain.cli import main

if __name__ == "__main__":  # a sweep's processes import it again
    main()
