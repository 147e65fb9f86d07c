"""Flows: what decides a connection's path, and how it is read off a socket.

The kernel chooses the way of an established connection by the same fields as that of a new one,
with the source address given: struct flowi4 / flowi6 (net/flow.h), filled by inet_csk_rebuild_route()
and inet6_csk_route_socket().

    field        from
    ----------   ----------------------------------------------------------------------
    peer         getpeername(), or the `peer=` of an unconnected datagram socket
    local        getsockname(); None while it is the wildcard
    device       SO_BINDTOIFINDEX, or the scope of a link-local address
    mark         SO_MARK; what nftables sets afterwards cannot be seen
    tos          IP_TOS or IPV6_TCLASS without the two ECN bits, which routing never looks at
    uid          the socket's inode: sk_uid follows it (sockfs_setattr)
    transparent  IP_TRANSPARENT: the source need not be an address of this host
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol, TypeAlias, TypeGuard, cast

import attrs
import trio

from ..netlink import IPAddress

AnySocket: TypeAlias = trio.socket.SocketType | socket.socket
Peer: TypeAlias = tuple[str | IPAddress, int]

# Python has names for some of these only in later versions, or on some systems (asm-generic/socket.h, linux/in6.h).
_SO_PROTOCOL: Final = 38
_SO_COOKIE: Final = 57
_SO_BINDTOIFINDEX: Final = 62
_SO_NETNS_COOKIE: Final = 71
_IP_TRANSPARENT: Final = 19
_IPV6_TRANSPARENT: Final = 75
_IPPROTO_MPTCP: Final = 262
_ECN_BITS: Final = 0x03
_DEEPEST: Final = 16  # layers of wrapped streams; more is a circle


_EVERYBODY = IPv4Address("255.255.255.255")


def _why_unjudged(flow: Flow) -> str:
    if flow.protocol not in ("tcp", "udp"):
        return f"{flow.protocol} is neither TCP nor UDP"
    peer, local = flow.peer, flow.local
    if peer is None:
        return "it has no peer"
    if peer.is_multicast:
        return "its peer is a multicast group"
    if peer == _EVERYBODY:
        return "it is broadcast"
    if peer.is_loopback and (local is None or local.is_loopback):
        return "it goes from loopback to loopback"
    return ""


def _endpoint(address: IPAddress | None, port: int) -> str:
    if address is None:
        return f"*:{port}"
    # !s, because an address formats itself by way of three more functions.
    return f"{address!s}:{port}" if address.version == 4 else f"[{address!s}]:{port}"


@attrs.frozen(kw_only=True)
class Flow:
    """What decides a connection's path.

    Attributes:
      peer: The peer's address, IPv4-mapped ones unmapped, without scope; None where there is no such thing.
      peer_port: The peer's port; 0 where unknown.
      local: The connection's own address; None while it is not chosen.
      local_port: Its own port.
      protocol: "tcp" or "udp"; any other word for what is not judged.
      device: ifindex of the link that it is bound to, by option or by a link-local address; None if to none.
      mark: SO_MARK.
      tos: Type of service or traffic class, the ECN bits cleared.
      uid: The user to whom the socket belongs, for rules with a uidrange.
      transparent: The local address need not be this host's (IP_TRANSPARENT).
      unjudged: Why the connection is never judged, in words; "" if it is.
    """

    peer: IPAddress | None
    peer_port: int = 0
    local: IPAddress | None = None
    local_port: int = 0
    protocol: str = "tcp"
    device: int | None = None
    mark: int = 0
    tos: int = 0
    uid: int | None = None
    transparent: bool = False
    unjudged: str = attrs.field(default=attrs.Factory(_why_unjudged, takes_self=True))

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6 as packets go out; AF_UNSPEC without a peer."""
        if self.peer is None:
            return socket.AF_UNSPEC
        return socket.AF_INET if self.peer.version == 4 else socket.AF_INET6

    def __str__(self) -> str:
        local, peer = _endpoint(self.local, self.local_port), _endpoint(self.peer, self.peer_port)
        return f"{self.protocol} {local} -> {peer}"


class Abortable(Protocol):
    """A stream without a socket that can be judged and ended all the same, as `testing.FakeKernel` makes them."""

    @property
    def flow(self) -> Flow:
        """What decides its path."""
        ...

    def abort(self) -> None:
        """Make pending and later calls fail with `trio.BrokenResourceError`."""
        ...


def layers(what: object) -> Iterator[object]:
    """Yield a stream and what it is made of, outside in: guarded, TLS and stapled streams, down to the socket."""
    layer: object = what
    for _ in range(_DEEPEST):
        yield layer
        if isinstance(layer, AnySocket):
            return
        for name in ("socket", "inner", "transport_stream", "send_stream"):
            inner: object = getattr(layer, name, None)
            if inner is not None:
                layer = inner
                break
        else:
            return


def socket_of(what: object) -> AnySocket | None:
    """The Trio or stdlib socket in an object, however many streams are around it; None if there is none."""
    return next((layer for layer in layers(what) if isinstance(layer, AnySocket)), None)


def is_abortable(what: object) -> TypeGuard[Abortable]:
    """Whether an object can be ended without a socket. A runtime-checkable protocol would take 30 µs to say so."""
    return isinstance(getattr(what, "flow", None), Flow) and callable(getattr(what, "abort", None))


def abortable_of(what: object) -> Abortable | None:
    """The stream in an object that stands for a socket; None if there is none."""
    return next((layer for layer in layers(what) if is_abortable(layer)), None)


def cookie_of(sock: AnySocket) -> int:
    """The kernel's name for a socket (SO_COOKIE): the same for duplicates, never used twice.

    Raises:
      trio.ClosedResourceError: The socket is closed.
    """
    _check_open(sock)
    return _unsigned(sock, _SO_COOKIE)


def is_connected(sock: AnySocket) -> bool:
    """Whether the socket has a peer; False also while it is still connecting, and once it was disconnected."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def flow_of(sock: AnySocket, *, peer: Peer | None = None, netns_cookie: int | None = None) -> Flow:
    """Read a socket's flow. Set its options before; a later change is not seen.

    Args:
      sock: A Trio or stdlib socket.
      peer: For a datagram socket that is not connected: where it sends to.
      netns_cookie: SO_NETNS_COOKIE of the namespace whose tables are followed; None if it is not known.

    Raises:
      trio.ClosedResourceError: The socket is closed.
      ValueError: A stream socket that is not connected, or a socket of another network namespace.
    """
    _check_open(sock)
    _check_namespace(sock, netns_cookie)
    kind = _option(sock, socket.SOL_SOCKET, socket.SO_TYPE)
    if kind == socket.SOCK_STREAM and not is_connected(sock):
        raise ValueError("the stream socket is not connected: there is no path to keep it true to")
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return Flow(peer=None, protocol=_FAMILY_NAMES.get(sock.family, f"address family {int(sock.family)}"))
    protocol = _protocol_name(kind, _option(sock, socket.SOL_SOCKET, _SO_PROTOCOL))
    peer_address, peer_port, peer_scope = _read_peer(sock, peer)
    local_address, local_port, local_scope = _parse(sock.getsockname())
    if protocol == "mptcp":
        # Unjudged: and it answers EOPNOTSUPP to some of what is asked below (mptcp_getsockopt: IPV6_TCLASS).
        return Flow(
            peer=peer_address, peer_port=peer_port, local=local_address, local_port=local_port, protocol=protocol
        )
    ipv4 = peer_address is not None and peer_address.version == 4
    return Flow(
        peer=peer_address,
        peer_port=peer_port,
        local=None if local_address.is_unspecified else local_address,
        local_port=local_port,
        protocol=protocol,
        device=_bound_device(sock) or peer_scope or local_scope or None,
        mark=_option(sock, socket.SOL_SOCKET, socket.SO_MARK),
        tos=_traffic_class(sock, ipv4) & ~_ECN_BITS,
        uid=os.fstat(sock.fileno()).st_uid,
        transparent=_is_transparent(sock),
    )


_FAMILY_NAMES = {int(socket.AF_UNIX): "unix", int(socket.AF_NETLINK): "netlink", int(socket.AF_PACKET): "packet"}


def _protocol_name(kind: int, protocol: int) -> str:
    if protocol == _IPPROTO_MPTCP:
        return "mptcp"  # it lives on by another subflow
    names: dict[tuple[int, int], str] = {
        (socket.SOCK_STREAM, socket.IPPROTO_TCP): "tcp",
        (socket.SOCK_DGRAM, socket.IPPROTO_UDP): "udp",
    }
    return names.get((kind, protocol), f"IP protocol {protocol}")


def _check_open(sock: AnySocket) -> None:
    if sock.fileno() == -1:
        raise trio.ClosedResourceError("the socket is closed")


def _check_namespace(sock: AnySocket, expected: int | None) -> None:
    if expected is None:
        return
    try:
        cookie = _unsigned(sock, _SO_NETNS_COOKIE)
    except OSError:
        return  # before Linux 5.14, or a family without it: nothing to compare
    if cookie != expected:
        raise ValueError("the socket belongs to another network namespace than the tables that are followed")


def _read_peer(sock: AnySocket, given: Peer | None) -> tuple[IPAddress | None, int, int]:
    if given is not None:
        return _parse((str(given[0]), given[1]))
    try:
        return _parse(sock.getpeername())
    except OSError:
        return None, 0, 0


def is_peer(flow: Flow, given: Peer) -> bool:
    """Whether a peer is that of a flow, however its address is written."""
    address, port, scope = _parse((str(given[0]), given[1]))
    return (address, port) == (flow.peer, flow.peer_port) and scope in (0, flow.device)


def _parse(name: object) -> tuple[IPAddress, int, int]:
    """(address, port, scope) of a socket's name: (host, port) or (host, port, flow label, scope)."""
    parts = cast("tuple[str, int] | tuple[str, int, int, int]", name)
    address = ip_address(parts[0])
    scope = parts[3] if len(parts) == 4 else 0
    if isinstance(address, IPv6Address):
        scope = scope or _scope_number(address.scope_id)
        return unmapped(address), parts[1], scope
    return address, parts[1], scope


def unmapped(address: IPv6Address) -> IPAddress:
    """The address without scope, and as IPv4 if it is an IPv4 address in IPv6 clothes (::ffff:0:0/96)."""
    mapped: IPv4Address | None = address.ipv4_mapped
    return mapped if mapped is not None else IPv6Address(int(address))


def _scope_number(scope: str | None) -> int:
    if scope is None:
        return 0
    return int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)


def _bound_device(sock: AnySocket) -> int:
    try:
        return _option(sock, socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
    except OSError:  # before Linux 5.1 it can only be asked by name
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
        return socket.if_nametoindex(name) if name else 0


def _traffic_class(sock: AnySocket, ipv4: bool) -> int:
    # Also of an AF_INET6 socket with an IPv4-mapped peer: its packets carry the TOS of the IPv4 level.
    if ipv4:
        return _option(sock, socket.IPPROTO_IP, socket.IP_TOS)
    return _option(sock, socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if sock.family == socket.AF_INET6 else 0


def _is_transparent(sock: AnySocket) -> bool:
    if sock.family == socket.AF_INET6:
        return bool(_option(sock, socket.IPPROTO_IPV6, _IPV6_TRANSPARENT))
    return bool(_option(sock, socket.IPPROTO_IP, _IP_TRANSPARENT))


def _option(sock: AnySocket, level: int, option: int) -> int:
    return sock.getsockopt(level, option)


def _unsigned(sock: AnySocket, option: int) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, option, 8), sys.byteorder)
