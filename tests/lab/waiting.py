"""Waiting for what the kernel does in its own time and tells nobody."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def until(condition: Callable[[], bool], *, seconds: float = 5) -> None:
    """Ask every 10 ms whether ``condition`` holds, and return when it does.

    Raises:
      trio.TooSlowError: It did not within ``seconds``.
    """
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.sleep(0.01)
