"""Saying each thing once: a log that repeats itself every ten minutes is not read."""

from __future__ import annotations

import logging

log = logging.getLogger("trio_routes")

# Different things that are said before the log has enough of them; each is a line of at most some 600 characters.
MOST_SAID = 256


class Once:
    """Writes each distinct text to the log once, and falls silent after many."""

    def __init__(self, most: int = MOST_SAID) -> None:
        self._most = most
        self._said: set[str] = set()

    def say(self, level: int, text: str) -> bool:
        """Log a text unless that was done before; returns whether it was new."""
        if text in self._said or len(self._said) > self._most:
            return False
        self._said.add(text)
        if len(self._said) > self._most:
            log.log(level, "%d differences were logged; further ones are counted only", self._most)
            return False
        log.log(level, "%s", text)
        return True
