"""What the commands that train have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def errors_explained(parser: argparse.ArgumentParser, folder: Path | None) -> Iterator[None]:
    """Exit with a usage error for bad options, and with how to go on when interrupted.

    Args:
        parser: of the command.
        folder: of the training; None if there is none.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        if folder is None:
            raise
        sys.exit(f"\nInterrupted; the same command goes on from the last state kept in {folder}.")


def printed(line: str) -> None:
    """Print a line of progress at once, also into a file."""
    print(line, flush=True)
