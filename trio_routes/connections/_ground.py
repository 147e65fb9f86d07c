"""What streams, listeners and reconnecting stand on: the parts of one pt that they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from ._budget import Budget

if TYPE_CHECKING:
    from .._broadcast import Pulse
    from ..netlink import Kernel
    from ..routing import Cache
    from ._bindings import Bindings
    from ._registry import Registry


@attrs.frozen(eq=False)
class Ground:
    """The parts of one pt that connecting and guarding use.

    Attributes:
      kernel: Resolves names, connects and listens, in the pt's network namespace.
      cache: The routing cache.
      registry: The connections.
      pulse: Wakes who waits for the tables to change.
      monitoring: Whether the cache follows the kernel; if not, what it says is no reason to refuse anything.
      bindings: Which listeners are bound to an address that may go.
      share_ports: Servers bind with SO_REUSEPORT: several workers serve one port (R51).
      reconnects: How many lost connections may be made anew, and when.
    """

    kernel: Kernel
    cache: Cache
    registry: Registry
    pulse: Pulse
    monitoring: Callable[[], bool]
    bindings: Bindings
    share_ports: bool = False
    reconnects: Budget = attrs.field(factory=Budget)

    @property
    def informed(self) -> bool:
        """Whether the cache's answers can be acted on: it follows the kernel and is not being read anew."""
        return self.monitoring() and not self.cache.resyncing
