"""A pace for reconnecting: one gateway's return wakes every connection that was lost with it, at once."""

from __future__ import annotations

import attrs
import trio

# Connections a second, and how many may start together. A hundred SYNs and TLS handshakes a second are nothing
# to a client or its NAT; a thousand clients that lose one access point must not all knock in the same tick.
RATE = 100.0
BURST = 100


@attrs.define(eq=False)
class Budget:
    """Hands out turns: `burst` at once, then `rate` a second, in the order in which they were asked for.

    Attributes:
      rate: Turns a second.
      burst: Turns that may be taken at once after a quiet time.
    """

    rate: float = RATE
    burst: int = BURST
    # `trio.current_time()` up to which turns are given away. A bucket of tokens in one number: it is
    # `burst` turns deep at (now - burst / rate) and empty at now.
    _spent_until: float = attrs.field(default=float("-inf"), init=False)

    async def take(self) -> None:
        """Wait for one's turn. Always a checkpoint; a cancelled wait gives its turn up unused."""
        now = trio.current_time()
        self._spent_until = max(self._spent_until, now - self.burst / self.rate) + 1 / self.rate
        await trio.sleep(max(0.0, self._spent_until - now))
