"""The command `unet`, also as `python -m unet`; an interrupt ends it at any moment.

What takes time to import is imported where the interrupt is caught.
"""

import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        from unet import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
