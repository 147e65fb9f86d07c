"""What every host of the lab stands on: a network namespace, fit for tests, and being in it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import trio

from . import _lab_follow
from ._lab_iproute import Configurator
from ._namespaces import Namespace

# A new namespace takes much of IPv4 from the machine's first one (net.core.devconf_inherit_init_net), where a
# distribution's defaults or a container engine have changed it. A test's network must be the same everywhere.
_KERNEL_DEFAULTS = {
    "net.ipv4.ip_forward": 0,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.default.promote_secondaries": 0,
    "net.ipv4.conf.all.promote_secondaries": 0,
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv6.conf.default.disable_ipv6": 0,
    "net.ipv6.conf.all.forwarding": 0,
}

_FIT_FOR_TESTS = {
    # An orphaned TCP socket whose FIN cannot leave keeps its namespace alive: 0.6 s with this, over 25 s without.
    "net.ipv4.tcp_orphan_retries": 1,
    # A link-local address is tentative for 1.3 to 1.7 s otherwise. The kernel takes the larger of "all" and the link's.
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    # Nothing comes by itself; a router advertisement that a test sends is still heard (accept_ra).
    "net.ipv6.conf.default.router_solicitations": 0,
    "net.ipv6.conf.default.autoconf": 0,
}


class Machine:
    """A network namespace with ``lo`` up.

    Attributes:
      name: As given to ``Lab.host()``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._open: tuple[Namespace, Configurator] | None = None
        with ExitStack() as on_failure:
            namespace = Namespace.new()
            on_failure.callback(namespace.close)
            configurator = Configurator(namespace)
            on_failure.callback(configurator.close)
            self._open = namespace, configurator
            self._make_fit()
            configurator.set_link_state(configurator.index_of("lo"), up=True)
            on_failure.pop_all()

    def __repr__(self) -> str:
        return f"<Host {self.name}{'' if self._open else ' (closed)'}>"

    @property
    def netns(self) -> int:
        """The descriptor of the network namespace, for ``open_pt(netns=...)``; the lab's, do not close it."""
        return self._namespace.fileno()

    @property
    def _namespace(self) -> Namespace:
        return self._opened()[0]

    @property
    def _configurator(self) -> Configurator:
        return self._opened()[1]

    def _opened(self) -> tuple[Namespace, Configurator]:
        if self._open is None:
            raise trio.ClosedResourceError(f"the lab of host {self.name!r} is closed")
        return self._open

    def entered(self) -> AbstractContextManager[None]:
        """Have the calling thread in this host for a synchronous block: sockets, processes, /proc/sys/net.

        No ``await`` in it (RuntimeError afterwards), and no thread started (it would stay in the host).
        ``/proc/net`` and ``/sys/class/net`` show other namespaces even there: use /proc/thread-self/net.
        """
        return self._namespace.entered()

    def inside(self) -> AbstractContextManager[None]:
        """Have the current task, tasks that it starts in the block, and their worker threads in this host."""
        return _lab_follow.inside(self._namespace)

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Read a sysctl of this namespace, after writing ``value`` if one is given.

        Args:
          name: With dots ("net.ipv4.ip_forward") or, where a link's name has dots, slashes.
          value: What to write first.

        Raises:
          OSError: There is no such sysctl, or it belongs to the machine and not to a namespace.
        """
        path = Path("/proc/sys", name if "/" in name else name.replace(".", "/"))
        with self.entered():
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def _make_fit(self) -> None:
        for name, value in (_KERNEL_DEFAULTS | _FIT_FOR_TESTS).items():
            self._set_boot_sysctl(name, value)

    def _set_boot_sysctl(self, name: str, value: int) -> None:
        if not name.startswith("net.ipv6.") or os.path.exists("/proc/sys/net/ipv6"):
            self.sysctl(name, value)

    def close(self) -> None:
        """Let go of the namespace; closing twice is harmless."""
        if self._open is not None:
            namespace, configurator = self._open
            self._open = None
            try:
                configurator.close()
            finally:
                namespace.close()
