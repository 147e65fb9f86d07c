"""A host of the lab: its links, sockets and processes."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack

import trio

from ._lab_links import Link, Network
from ._lab_routing import RoutingMachine
from ._lab_words import Address, Interface, check_link_name, parse_address
from ._namespaces import Namespace
from ._processes import LabProcess, run_process


class Host(RoutingMachine):
    """One machine of the lab, made by ``Lab.host()``.

    Its methods that change the network are synchronous: each is done when it returns. Call them in the Trio thread.

    Attributes:
      name: As given to ``Lab.host()``.
      links: The links by name, without ``lo``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.links: dict[str, Link] = {}
        self._processes: list[LabProcess] = []

    async def run(self, argv: Sequence[str | os.PathLike[str]], *, stdin: bytes = b"") -> str:
        """Run a program in this host to its end and return what it wrote to stdout.

        Raises:
          subprocess.CalledProcessError: Its exit status is not 0; a note has its stderr.
          FileNotFoundError: There is no such program.
        """
        return await run_process([os.fspath(word) for word in argv], self._namespace, stdin)

    def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> LabProcess:
        """Start a program in this host that is killed with the lab at the latest, with all that it started.

        Args:
          argv: The program and its arguments.
          stdin: A descriptor or a constant of ``subprocess``; None inherits ours.
          stdout: Likewise.
          stderr: Likewise.

        Raises:
          FileNotFoundError: There is no such program.
        """
        process = LabProcess([os.fspath(word) for word in argv], self._namespace, stdin, stdout, stderr)
        self._processes.append(process)
        return process

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> trio.socket.SocketType:
        """Make a socket that belongs to this host for life, wherever it is used."""
        return trio.socket.from_stdlib_socket(_make_socket(self._namespace, family, kind, protocol))

    def listen(self, port: int, host: str | Address | None = None, *, backlog: int = 128) -> list[trio.SocketListener]:
        """Listen on a TCP port of this host.

        Args:
          port: 0 for one that the kernel picks, the same for both families.
          host: A local address; None for all of them, by one listener per family.
          backlog: Of listen(2).

        Raises:
          ValueError: ``host`` is not an address.
          OSError: As of bind(2).
        """
        addresses: list[str | Address] = ["0.0.0.0", "::"] if host is None else [host]
        listeners: list[trio.SocketListener] = []
        with ExitStack() as on_failure:
            for address in map(parse_address, addresses):
                listening = _make_socket(self._namespace, _family_of(address), socket.SOCK_STREAM)
                on_failure.callback(listening.close)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if address.version == 6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind((str(address), port))
                listening.listen(backlog)
                port = listening.getsockname()[1]
                listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(listening)))
            on_failure.pop_all()
        return listeners

    async def open_tcp_stream(
        self, address: str | Address, port: int, *, local_address: str | Address | None = None
    ) -> trio.SocketStream:
        """Connect from this host; the stream is a plain one, which nothing guards.

        Raises:
          ValueError: An address does not parse.
          OSError: As of bind(2) and connect(2).
        """
        peer = parse_address(address)
        connecting = self.socket(_family_of(peer), socket.SOCK_STREAM)
        try:
            if local_address is not None:
                await connecting.bind((str(parse_address(local_address)), 0))
            await connecting.connect((str(peer), port))
        except BaseException:
            connecting.close()
            raise
        return trio.SocketStream(connecting)

    def plug(self, network: Network, *, name: str, addresses: Sequence[str | Interface] = (), up: bool = True) -> Link:
        """Give this host a link to ``network``.

        Args:
          network: Of the same lab.
          name: At most 15 bytes, new in this host.
          addresses: With prefix lengths, of either family.
          up: Whether to set it up.

        Raises:
          ValueError: The name or an address cannot be, or the host has a link of that name.
        """
        check_link_name(name)
        if name == "lo" or name in self.links:
            raise ValueError(f"host {self.name!r} has a link {name!r} already")
        namespace, configurator = self._opened()
        port = network.wires.new_cable(network, name, namespace)
        link = Link(name, network, port, configurator, self._forget)
        self.links[name] = link
        try:
            if up:
                link.up()
            link.add_addresses(addresses)
        except BaseException:
            link.delete()
            raise
        return link

    def _forget(self, link: Link) -> None:
        self.links.pop(link.name, None)

    async def aclose(self) -> None:
        """End the host's processes and let go of its namespace, cancelled or not; for the lab."""
        async with AsyncExitStack() as everything:
            everything.callback(self.close)
            for link in list(self.links.values()):
                everything.callback(link.close)
            for process in self._processes:
                everything.push_async_callback(process.aclose)


def _make_socket(namespace: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    with namespace.entered():
        return socket.socket(family, kind, protocol)


def _family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
