"""What the package says while it works (which images it read) is shown on the terminal, one line each."""

from __future__ import annotations

import logging
import sys


class _Terminal(logging.Handler):
    """Prints to standard error as it is now: it may be redirected after the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def show_log(here: bool = True) -> None:
    """Show the messages of the logger "instanas_env" from now on, each once however often this is called.

    Args:
        here: whether this process is the one that talks; the others stay silent.
    """
    logger = logging.getLogger("instanas_env")
    if here and not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal())
        logger.setLevel(logging.INFO)
