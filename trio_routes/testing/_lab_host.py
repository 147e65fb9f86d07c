"""A host of the lab: a network namespace with its links, routes, sockets and processes."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import trio

from . import _lab_follow
from ._lab_iproute import Configurator
from ._lab_links import Link, Network
from ._lab_routes import RTPROT_STATIC, Family, Hop, RouteType, RuleAction, route_fields, rule_fields
from ._lab_words import Address, Interface, check_link_name, parse_address
from ._lab_words import Network as Prefix
from ._namespaces import Namespace
from ._processes import LabProcess, run_process

# A new namespace inherits much of IPv4 from the machine that the tests run on, where a distribution's
# defaults or a container engine have changed it. A test's network must be the same everywhere.
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


class Host:
    """One machine of the lab, made by ``Lab.host()``.

    Its methods that change the network are synchronous: each is one request of 0.3 to 0.9 ms, done when it returns. Call them
    in the Trio thread.

    Attributes:
      name: As given to ``Lab.host()``.
      links: The links by name, without ``lo``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: dict[str, Link] = {}
        self._processes: list[LabProcess] = []
        self._open: tuple[Namespace, Configurator] | None = None
        with ExitStack() as on_failure:
            namespace = Namespace.new()
            on_failure.callback(namespace.close)
            configurator = Configurator(namespace)
            on_failure.callback(configurator.close)
            self._open = namespace, configurator
            for sysctl, value in (_KERNEL_DEFAULTS | _FIT_FOR_TESTS).items():
                self._set_boot_sysctl(sysctl, value)
            configurator.set_link_state(configurator.index_of("lo"), up=True)
            on_failure.pop_all()

    def __repr__(self) -> str:
        return f"<Host {self.name}{'' if self._open else ' (closed)'}>"

    # Being there.

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

    # Programs.

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
          stdin: A descriptor or a constant of ``subprocess``; so are ``stdout`` and ``stderr``. None inherits ours.

        Raises:
          FileNotFoundError: There is no such program.
        """
        process = LabProcess([os.fspath(word) for word in argv], self._namespace, stdin, stdout, stderr)
        self._processes.append(process)
        return process

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Read a sysctl of this namespace, after writing ``value`` if one is given.

        Args:
          name: With dots ("net.ipv4.ip_forward") or, where a link's name has dots, slashes.

        Raises:
          OSError: There is no such sysctl, or it belongs to the machine and not to a namespace.
        """
        path = Path("/proc/sys", name if "/" in name else name.replace(".", "/"))
        with self.entered():
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def _set_boot_sysctl(self, name: str, value: int) -> None:
        if not name.startswith("net.ipv6.") or os.path.exists("/proc/sys/net/ipv6"):
            self.sysctl(name, value)

    # Sockets: the caller's to close.

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, protocol: int = 0) -> trio.socket.SocketType:
        """Make a socket that belongs to this host for life, wherever it is used."""
        return trio.socket.from_stdlib_socket(self._stdlib_socket(family, type, protocol))

    def _stdlib_socket(self, family: int, type: int, protocol: int = 0) -> socket.socket:
        with self.entered():
            return socket.socket(family, type, protocol)

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
                listening = self._stdlib_socket(_family_of(address), socket.SOCK_STREAM)
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

    # Links.

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
        link = Link(name, network, port, configurator, lambda gone: self._forget(gone))
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

    # Routes and rules.

    def add_route(
        self,
        destination: str | Prefix,
        *,
        via: str | Address | None = None,
        device: Link | str | None = None,
        metric: int | None = None,
        table: int | None = None,
        type: RouteType = "unicast",
        source: str | Address | None = None,
        nexthops: Sequence[Hop] = (),
        protocol: int = RTPROT_STATIC,
        family: Family | None = None,
    ) -> None:
        """Add a route.

        Args:
          destination: A prefix, an address, or "default".
          via: The gateway; of the other family too.
          device: A link or its name.
          metric: None for the kernel's choice (0, IPv6: 1024).
          table: None for main (254).
          type: "unicast" or what is to be answered instead.
          source: The preferred source address.
          nexthops: Of a multipath route, in place of ``via`` and ``device``.
          protocol: Who made it, as RTPROT_* of linux/rtnetlink.h (4: static, 16: a DHCP client).
          family: 4 or 6; needed only where no address tells.

        Raises:
          ValueError: Something does not parse or does not go together.
          KernelRefusedError: EEXIST: it is there; ENETUNREACH, EHOSTUNREACH: the gateway is not on a link.
        """
        self._route("add", destination, via, device, metric, table, type, source, nexthops, protocol, family)

    def replace_route(
        self,
        destination: str | Prefix,
        *,
        via: str | Address | None = None,
        device: Link | str | None = None,
        metric: int | None = None,
        table: int | None = None,
        type: RouteType = "unicast",
        source: str | Address | None = None,
        nexthops: Sequence[Hop] = (),
        protocol: int = RTPROT_STATIC,
        family: Family | None = None,
    ) -> None:
        """Put a route in the place of that with the same destination, table and metric, or add it. As ``add_route()``."""
        self._route("replace", destination, via, device, metric, table, type, source, nexthops, protocol, family)

    def delete_route(
        self,
        destination: str | Prefix,
        *,
        via: str | Address | None = None,
        device: Link | str | None = None,
        metric: int | None = None,
        table: int | None = None,
        type: RouteType = "unicast",
        family: Family | None = None,
    ) -> None:
        """Delete the first route that matches all that is given. As ``add_route()``.

        Raises:
          KernelRefusedError: ESRCH: there is none.
        """
        self._route("del", destination, via, device, metric, table, type, None, (), None, family)

    def _route(
        self,
        command: str,
        destination: str | Prefix,
        via: str | Address | None,
        device: Link | str | None,
        metric: int | None,
        table: int | None,
        type: RouteType,
        source: str | Address | None,
        nexthops: Sequence[Hop],
        protocol: int | None,
        family: Family | None,
    ) -> None:
        configurator = self._configurator
        fields = route_fields(
            destination,
            via=via,
            device=configurator.index_of(device) if isinstance(device, str) else device,
            metric=metric,
            table=table,
            type=type,
            source=source,
            nexthops=nexthops,
            protocol=protocol,
            family=family,
        )
        configurator.route(command, fields)

    def add_rule(
        self,
        *,
        priority: int,
        table: int | None = None,
        source: str | Prefix | None = None,
        destination: str | Prefix | None = None,
        incoming: Link | str | None = None,
        outgoing: Link | str | None = None,
        mark: int | None = None,
        action: RuleAction = "lookup",
        family: Family | None = None,
    ) -> None:
        """Add a routing policy rule.

        Args:
          priority: Lower ones come first; local is 0, main 32766, default 32767.
          table: Where to look; main by default.
          source: A prefix of source addresses.
          destination: A prefix.
          incoming: The link by which a packet came; "lo" for this host's own.
          outgoing: The link to which the socket is bound.
          mark: The socket's or packet's mark, all 32 bits.
          action: "lookup" in the table, or what is to be answered.
          family: 4 or 6; needed where no prefix tells.

        Raises:
          ValueError: Something does not parse or does not go together.
          KernelRefusedError: EEXIST: it is there.
        """
        self._rule("add", priority, table, source, destination, incoming, outgoing, mark, action, family)

    def delete_rule(
        self,
        *,
        priority: int,
        table: int | None = None,
        source: str | Prefix | None = None,
        destination: str | Prefix | None = None,
        incoming: Link | str | None = None,
        outgoing: Link | str | None = None,
        mark: int | None = None,
        action: RuleAction = "lookup",
        family: Family | None = None,
    ) -> None:
        """Delete a rule, given as it was added.

        Raises:
          KernelRefusedError: ENOENT: there is none.
        """
        self._rule("del", priority, table, source, destination, incoming, outgoing, mark, action, family)

    def _rule(
        self,
        command: str,
        priority: int,
        table: int | None,
        source: str | Prefix | None,
        destination: str | Prefix | None,
        incoming: Link | str | None,
        outgoing: Link | str | None,
        mark: int | None,
        action: RuleAction,
        family: Family | None,
    ) -> None:
        fields = rule_fields(
            priority=priority,
            table=table,
            source=source,
            destination=destination,
            incoming=incoming,
            outgoing=outgoing,
            mark=mark,
            action=action,
            family=family,
        )
        self._configurator.rule(command, fields)

    # Routers.

    def forward(self) -> None:
        """Make this host a router, of both families."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self._set_boot_sysctl("net.ipv6.conf.all.forwarding", 1)

    def masquerade(self, link: Link) -> None:
        """Translate the source of all that is forwarded out of ``link`` to the link's own address (NAT), in both families.

        Raises:
          KernelRefusedError: The kernel has no nftables with NAT.
        """
        self._configurator.masquerade(link.ifindex)

    def refuse_foreign_sources(self, link: Link) -> None:
        """Drop what arrives by ``link`` to be forwarded with a source outside the link's prefixes, in both families.

        As a provider's router does (BCP 38). Without it, or NAT, a connection survives when its default route moves to another
        uplink: its old source is simply routed. Covers IPv6 too, for which there is no rp_filter.
        """
        for interface in link.addresses:
            self.add_rule(priority=10, incoming=link, source=interface.network)
        families: tuple[Family, ...] = (4, 6)
        for family in families:
            self.add_rule(priority=11, incoming=link, action="blackhole", family=family)

    def close(self) -> None:
        """End the host's processes and let go of its namespace; for the lab."""
        if self._open is None:
            return
        namespace, configurator = self._open
        self._open = None
        with ExitStack() as everything:
            everything.callback(namespace.close)
            everything.callback(configurator.close)
            for link in list(self.links.values()):
                everything.callback(link.close)
            for process in self._processes:
                everything.callback(process.close)


def _family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
