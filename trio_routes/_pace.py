"""How long to wait before trying again what may fail again at once."""

from __future__ import annotations

import math

# Seconds between tries: 0.1 doubling to 10.
FIRST_RETRY, LAST_RETRY = 0.1, 10.0


class Pace:
    """When to try again: at once after a calm time, then with a delay of 0.1 s that doubles to 10 s."""

    def __init__(self) -> None:
        self._last = -math.inf
        self._delay = 0.0

    def next(self, now: float) -> float:
        """Return the time of the next try, and count it as made then."""
        if now < self._last:
            return self._last  # one is still to come
        if now - self._last > 2 * self._delay:
            self._delay = 0.0
        self._last = max(now, self._last + self._delay)
        self._delay = min(max(FIRST_RETRY, 2 * self._delay), LAST_RETRY)
        return self._last

    def later(self, now: float) -> float:
        """Do the same, but never at once."""
        return max(self.next(now), now + FIRST_RETRY)
