"""Changing a namespace's links, addresses, routes, rules and NAT: pyroute2 behind typed functions.

pyroute2's objects stop here. What has to be known of it:

- An ``IPRoute()`` used from another thread than its maker's opens, silently, a second socket in *that*
  thread's namespace: as root that is the real machine. Given a socket, it raises RuntimeError
  instead; we do so first, with the request named. (The socket must be SOCK_DGRAM; SOCK_RAW is a ValueError.)
- ``IPRoute(netns=...)`` and ``NetNS`` fork a process each, 9 ms; a socket made inside the namespace needs none.
- Each request is a blocking call of 0.3 to 0.9 ms, which is fine in the Trio thread of a test.
- It never passes on the kernel's own explanation: its error's text is that of the number.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol, cast

import trio

from .._errors import KernelRefusedError
from ._namespaces import Namespace

# include/uapi/linux/if_addr.h: the address is usable at once, without duplicate address detection
_IFA_F_NODAD = 0x02

# include/uapi/linux/netfilter.h and netfilter/nf_tables.h
_NF_ACCEPT = 1
_NFT_REG_1 = 1
_NFT_META_OIF = 5
_NFT_CMP_EQ = 0
# include/uapi/linux/netfilter_ipv4.h: where source translation hooks in
_NF_IP_PRI_NAT_SRC = 100


class _Request(Protocol):
    def __call__(self, command: str, **fields: object) -> object: ...


class _IPRoute(Protocol):
    """What is used of ``pyroute2.IPRoute``."""

    link: _Request
    addr: _Request
    route: _Request
    rule: _Request

    def close(self) -> None: ...


class _NFTables(Protocol):
    """What is used of ``pyroute2.nftables.main.NFTables``."""

    table: _Request
    chain: _Request
    rule: _Request

    def close(self) -> None: ...


class Configurator:
    """Changes one namespace; to be used in the thread that made it."""

    def __init__(self, namespace: Namespace) -> None:
        from pyroute2 import IPRoute  # type: ignore[import-untyped]  # pyroute2 has no types

        self._namespace = namespace
        self._thread = threading.get_ident()
        self._closed = False
        with ExitStack() as on_failure:
            with namespace.entered():
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
                on_failure.callback(self._socket.close)
                self._iproute = cast(_IPRoute, IPRoute(use_socket=self._socket))
            on_failure.pop_all()

    @contextmanager
    def _asking(self, request: str) -> Generator[None]:
        """Turn pyroute2's error into ours, which is an OSError and says what was asked."""
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # pyroute2 has no types

        if self._closed:
            raise trio.ClosedResourceError(f"the {request} was asked for after its lab was closed")
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"the {request} was asked for in another thread than that which opened the lab")
        try:
            yield
        except NetlinkError as error:
            number = cast(int, error.code)
            raise KernelRefusedError(number, request) from error

    def close(self) -> None:
        """Close the sockets."""
        self._closed = True
        self._iproute.close()
        self._socket.close()

    def index_of(self, name: str) -> int:
        """Return the index of the link called ``name``.

        Raises:
          OSError: There is none.
        """
        with self._namespace.entered():
            try:
                return socket.if_nametoindex(name)
            except OSError:  # whose text has neither the name nor an error number
                raise OSError(errno.ENODEV, f"there is no link {name!r}") from None

    def add_bridge(self, name: str) -> int:
        """Make a bridge that forwards at once and sends nothing of its own; return its index."""
        with self._asking(f"bridge {name}"):
            self._iproute.link("add", ifname=name, kind="bridge", br_mcast_snooping=0, br_forward_delay=0)
        index = self.index_of(name)
        self.set_link_state(index, up=True)
        return index

    def add_cable(self, port: str, bridge: int, name: str, namespace: Namespace) -> int:
        """Make a veth pair: ``port`` here, up and on ``bridge``; ``name`` in ``namespace``, down.

        Returns:
          The port's index.
        """
        with self._asking(f"link {name}"):
            peer = {"ifname": name, "net_ns_fd": namespace.fileno()}
            self._iproute.link("add", ifname=port, kind="veth", peer=peer)
            index = self.index_of(port)
            self._iproute.link("set", index=index, master=bridge, state="up")
        return index

    def set_link_state(self, index: int, *, up: bool) -> None:
        """Set a link up or down."""
        with self._asking(f"change of link {index} to {'up' if up else 'down'}"):
            self._iproute.link("set", index=index, state="up" if up else "down")

    def delete_link(self, index: int) -> None:
        """Delete a link; a veth's other end goes with it."""
        with self._asking(f"deletion of link {index}"):
            self._iproute.link("del", index=index)

    def address(self, command: str, index: int, address: str, prefix_length: int) -> None:
        """Add or delete ("add", "del") an address."""
        flags = {"flags": _IFA_F_NODAD} if command == "add" and ":" in address else {}
        with self._asking(f"address {address}/{prefix_length} ({command}) of link {index}"):
            self._iproute.addr(command, index=index, address=address, prefixlen=prefix_length, **flags)

    def route(self, command: str, fields: Mapping[str, object]) -> None:
        """Add, replace or delete ("add", "replace", "del") a route, in pyroute2's names."""
        with self._asking(f"route ({command}) {_in_words(fields)}"):
            self._iproute.route(command, **fields)

    def rule(self, command: str, fields: Mapping[str, object]) -> None:
        """Add or delete ("add", "del") a routing policy rule, in pyroute2's names."""
        with self._asking(f"rule ({command}) {_in_words(fields)}"):
            self._iproute.rule(command, **fields)

    def masquerade(self, index: int) -> None:
        """Give what is forwarded out of link ``index`` that link's own address as its source, in both families."""
        from pyroute2.nftables.main import NFTables  # type: ignore[import-untyped]  # pyroute2 has no types

        # linux/netfilter.h: NFPROTO_IPV4, NFPROTO_IPV6
        for family in (2, 10):
            with self._namespace.entered():
                nft = cast(_NFTables, NFTables(nfgen_family=family))
            try:
                with self._asking("masquerade (nftables with NAT)"):
                    _masquerade(nft, f"masquerade-{index}", index)
            finally:
                nft.close()


def _masquerade(nft: _NFTables, table: str, index: int) -> None:
    nft.table("add", name=table)
    nft.chain(
        "add",
        table=table,
        name="post",
        hook="postrouting",
        type="nat",
        priority=_NF_IP_PRI_NAT_SRC,
        policy=_NF_ACCEPT,
    )
    nft.rule("add", table=table, chain="post", expressions=(list(_leaving_by(index)), _expression("masq")))


def _leaving_by(index: int) -> Iterator[object]:
    # The kernel keeps an interface index in host byte order in its registers.
    yield from _expression("meta", key=_NFT_META_OIF, dreg=_NFT_REG_1)
    wanted = {"attrs": [("NFTA_DATA_VALUE", index.to_bytes(4, sys.byteorder))]}
    yield from _expression("cmp", sreg=_NFT_REG_1, op=_NFT_CMP_EQ, data=wanted)


def _expression(name: str, **fields: object) -> Sequence[object]:
    from pyroute2.nftables.expressions import genex  # type: ignore[import-untyped]  # pyroute2 has no types

    make = cast(Callable[[str, Mapping[str, object]], object], genex)
    return [make(name, fields)]


def _in_words(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name} {value}" for name, value in fields.items())
