"""Networks and the cables to them.

A network is a bridge in a namespace of the lab's own, "the wires"; a host's link is one end of a veth pair
whose other end, the port, is on that bridge. So a network takes any number of hosts, and a cable can be
unplugged at the port, without touching the host. (A veth has no carrier switch of its own: RTM_NEWLINK with
IFLA_CARRIER is EOPNOTSUPP, and pyroute2 says that it succeeded.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ._lab_iproute import Configurator
from ._lab_words import Interface, parse_interface
from ._namespaces import Namespace


class Network:
    """A network segment: what is plugged into it is on one link layer.

    Attributes:
      name: As given to ``Lab.network()``.
    """

    def __init__(self, name: str, wires: Wires, bridge: int) -> None:
        self.name = name
        self.wires = wires
        self.bridge = bridge

    def __repr__(self) -> str:
        return f"<Network {self.name}>"


class Wires:
    """The namespace with the bridges and the ports. Its names are numbers and are never shown."""

    def __init__(self, namespace: Namespace, configurator: Configurator) -> None:
        self.namespace = namespace
        self.configurator = configurator
        self._count = 0

    def new_network(self, name: str) -> Network:
        """Make a bridge."""
        return Network(name, self, self.configurator.add_bridge(self._next("network")))

    def new_cable(self, network: Network, name: str, namespace: Namespace) -> int:
        """Lay a cable from ``network`` to a new link ``name`` in ``namespace``; return the port's index."""
        return self.configurator.add_cable(self._next("port"), network.bridge, name, namespace)

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{what}{self._count}"


class Link:
    """A host's link to a network.

    Attributes:
      name: Its name in the host.
      ifindex: Its index in the host.
      network: Where its cable goes.
      addresses: What it was given, in order, less what was deleted by ``delete_address()``. The kernel's own
        (link-local) ones, and what it deletes by itself, do not show here.
    """

    def __init__(
        self, name: str, network: Network, port: int, configurator: Configurator, forget: Callable[[Link], None]
    ) -> None:
        self.name = name
        self.network = network
        self.ifindex: int = configurator.index_of(name)
        self.addresses: list[Interface] = []
        self._port = port
        self._configurator = configurator
        self._forget = forget
        self._deleted = False

    def __repr__(self) -> str:
        return f"<Link {self.name} on {self.network.name}>"

    def up(self) -> None:
        """Set the link up. Routes and IPv6 addresses that went when it was set down do not return by themselves."""
        self._alive().set_link_state(self.ifindex, up=True)

    def down(self) -> None:
        """Set the link down: the kernel drops its routes and IPv6 addresses and keeps its IPv4 addresses."""
        self._alive().set_link_state(self.ifindex, up=False)

    def carrier(self, on: bool) -> None:
        """Plug the cable in or out: the link stays up and keeps addresses and routes.

        The kernel may tell up to a second later (net/core/link_watch.c): wait for the event, not for a time.
        """
        self._alive()
        self.network.wires.configurator.set_link_state(self._port, up=on)

    def add_address(self, address: str | Interface) -> None:
        """Add an address with prefix length; an IPv6 address is usable at once (no duplicate address detection).

        Raises:
          ValueError: It does not parse.
          KernelRefusedError: EEXIST: the link has it already.
        """
        interface = parse_interface(address)
        self._alive().address("add", self.ifindex, str(interface.ip), interface.network.prefixlen)
        self.addresses.append(interface)

    def delete_address(self, address: str | Interface) -> None:
        """Delete an address.

        Raises:
          ValueError: It does not parse.
          KernelRefusedError: EADDRNOTAVAIL: the link does not have it.
        """
        interface = parse_interface(address)
        self._alive().address("del", self.ifindex, str(interface.ip), interface.network.prefixlen)
        if interface in self.addresses:
            self.addresses.remove(interface)

    def add_addresses(self, addresses: Sequence[str | Interface]) -> None:
        """Add several addresses, in order."""
        for address in addresses:
            self.add_address(address)

    def delete(self) -> None:
        """Delete the link, cable included. Its name is free again; the object is of no more use."""
        self._alive().delete_link(self.ifindex)
        self.close()

    def close(self) -> None:
        """Take the object out of use; the kernel has deleted the link, or will with its namespace."""
        self._deleted = True
        self._forget(self)

    def _alive(self) -> Configurator:
        if self._deleted:
            raise trio.ClosedResourceError(f"the link {self.name} is deleted, or its lab is closed")
        return self._configurator
