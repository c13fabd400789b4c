"""`otocod` and `python -m otocod`."""

import sys


def main() -> int:
    """The exit status; see the public contract for what each one means."""
    from otocod.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
