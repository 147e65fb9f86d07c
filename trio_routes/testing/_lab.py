"""The lab: hosts and networks on the real kernel, for one ``async with`` block."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import trio

from ._lab_follow import follow_tasks, workers_follow
from ._lab_host import Host
from ._lab_iproute import Configurator
from ._lab_links import Network, Wires
from ._lab_privileges import LabUnavailable, unavailable
from ._lab_topologies import TwoUplinks, two_uplinks
from ._namespaces import Namespace

# Takes a millisecond; the bound is for processes that the kernel does not let die.
_EXIT_SECONDS = 30


class Lab:
    """A namespace lab.

    To be used like this::

        async with testing.Lab() as lab:
            device, server = lab.host("device"), lab.host("server")
            wifi = lab.network("wifi")
            device.plug(wifi, name="wlan0", addresses=["192.0.2.1/24", "2001:db8::1/64"])
            server.plug(wifi, name="eth0", addresses=["192.0.2.2/24", "2001:db8::2/64"])
            async with trio_routes.open_pt(netns=device.netns) as pt:
                ...

    All of it lives in network namespaces without names, which this process holds by descriptors: they are gone when the
    block ends, however it ends, and when the process is killed. Any number of labs may be open. Not for
    ``autojump_clock``, which does not wait for the kernel.

    While a lab is open, ``trio.to_thread.run_sync`` takes the caller's namespace along (see ``Host.inside()``).
    """

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._networks: dict[str, Network] = {}
        self._wires: Wires | None = None
        self._used = False
        self._exit = AsyncExitStack()

    @staticmethod
    def unavailable() -> str | None:
        """Say why this process cannot have a lab, in one line with the cure, or None if it can."""
        return unavailable()

    async def __aenter__(self) -> Self:
        """Open the lab, empty.

        Raises:
          LabUnavailable: With the reason that ``unavailable()`` gives.
          RuntimeError: The object was used before.
        """
        reason = self.unavailable()
        if reason is not None:
            raise LabUnavailable(reason)
        if self._used:
            raise RuntimeError("a Lab is used once: make another one")
        self._used = True
        await trio.lowlevel.checkpoint()
        async with AsyncExitStack() as on_failure:
            follow_tasks()
            workers_follow.hold()
            on_failure.callback(workers_follow.release)
            self._wires = _new_wires(on_failure)
            self._exit = on_failure.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill what runs in the hosts and let go of all namespaces, cancelled or not."""
        self._wires = None
        with trio.move_on_after(_EXIT_SECONDS, shield=True):
            await self._exit.aclose()
        # No place to be cancelled: an exception of the block's own is not to be replaced by Cancelled.
        await trio.lowlevel.cancel_shielded_checkpoint()

    def host(self, name: str) -> Host:
        """Add a host: ``lo`` up, nothing else.

        Raises:
          ValueError: The lab has a host of that name.
        """
        self._opened()
        if name in self._hosts:
            raise ValueError(f"the lab has a host {name!r} already")
        host = Host(name)
        self._exit.push_async_callback(host.aclose)
        self._hosts[name] = host
        return host

    def network(self, name: str) -> Network:
        """Add a network, for ``Host.plug()``.

        Raises:
          ValueError: The lab has a network of that name.
        """
        wires = self._opened()
        if name in self._networks:
            raise ValueError(f"the lab has a network {name!r} already")
        network = wires.new_network(name)
        self._networks[name] = network
        return network

    def two_uplinks(
        self, *, nat: bool = True, lte_metric: int | None = None, spare_gateway: bool = False
    ) -> TwoUplinks:
        """Build a device with two uplinks and a neighbour, and a server behind both; see ``TwoUplinks``.

        Args:
          nat: Whether the routers translate; otherwise everybody has routes back.
          lte_metric: The metric of a second default route, by the LTE link; None for no such route.
          spare_gateway: Whether there is a second router on the Wi-Fi, at 10.0.1.254 and 2001:db8:1::fe.
        """
        return two_uplinks(self, nat=nat, lte_metric=lte_metric, spare_gateway=spare_gateway)

    def _opened(self) -> Wires:
        if self._wires is None:
            if self._used:
                raise trio.ClosedResourceError("the lab is closed")
            raise RuntimeError("the lab is not open: use `async with Lab() as lab`")
        return self._wires


def _new_wires(exit_stack: AsyncExitStack) -> Wires:
    namespace = Namespace.new()
    exit_stack.callback(namespace.close)
    with namespace.entered():
        _silence_ipv6()
    configurator = Configurator(namespace)
    exit_stack.callback(configurator.close)
    return Wires(namespace, configurator)


def _silence_ipv6() -> None:
    """Keep the bridges from speaking: they are cables, not hosts."""
    try:
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as sysctl:
            sysctl.write("1")
    except FileNotFoundError:
        pass  # a kernel without IPv6
