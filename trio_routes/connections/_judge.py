"""The judge: what the network as it is now means for one connection. Pure: no clock, no socket, no memory.

    the local address is not there ............................ SOURCE_GONE      absolute:
    no route; a route or rule that rejects .................... NO_ROUTE, REJECTED   what was does not matter
    local now and unicast before, or the other way round ...... PEER_MOVED
    a next hop of now is a known one .......................... UNCHANGED
        and all such hops' links are dead ..................... CARRIER_LOST
        and no next hop of now answers neighbour discovery .... GATEWAY_FAILED
    the local address is on no link of either path ............ REROUTED
    a link in common .......................................... GATEWAY_CHANGED
    none ...................................................... EGRESS_CHANGED

State decides, not events: a route that went and came back, another metric, source hint or MTU
are nothing. The order matters and is the table's. `docs/verdicts.md` has the situations behind it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import NamedTuple, Protocol, TypeAlias

import attrs

from ..netlink import AF_INET, RTPROT_RA, IPAddress
from ..routing import Address, Kind, Link, Outcome, Resolution, Route
from ._flow import Flow
from ._verdict import Verdict

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_IFA_F_DADFAILED = 0x08  # linux/if_addr.h


class View(Protocol):
    """What the judge asks of the routing cache."""

    def lookup(
        self,
        destination: IPAddress,
        *,
        source: IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        ip_proto: int = 0,
        sport: int = 0,
        dport: int = 0,
        strict: bool = False,
        any_source: bool = False,
        onlink_fallback: bool = True,
    ) -> Resolution:
        """Which way a flow goes now."""
        ...

    def link(self, ifindex: int) -> Link | None:
        """A link, or None if there is none of this number."""
        ...

    def has_address(self, address: IPAddress, ifindex: int) -> bool:
        """Whether that link has that address."""
        ...

    def addresses_of(self, address: IPAddress) -> tuple[Address, ...]:
        """This address, wherever a link has it."""
        ...

    def local_route(self, address: IPAddress) -> Route | None:
        """The `local` route of table 255 that covers an address."""
        ...

    def has_route(self, route: Route) -> bool:
        """Whether a route is in its table still, just as it was."""
        ...

    def neighbour_failed(self, ifindex: int, address: IPAddress) -> bool:
        """Whether neighbour discovery gave an address up."""
        ...


class Hop(NamedTuple):
    """A next hop as the judge compares them: weights, flags and encapsulations do not count."""

    kind: Kind
    ifindex: int | None
    gateway: IPAddress | None


Hops: TypeAlias = tuple[Hop, ...]

# A peer on this host lives on the host, not on a link: which link its address is on does not matter.
LOCAL_HOPS: Hops = (Hop(Kind.LOCAL, None, None),)


@attrs.frozen
class Finding:
    """The judge's answer.

    Attributes:
      verdict: What became of the connection's path.
      resolution: The lookup for its flow, now.
      hops: The next hops that its packets may take now; () where there is no path.
    """

    verdict: Verdict
    resolution: Resolution
    hops: Hops


def resolve(flow: Flow, view: View, *, onlink: bool = False) -> Resolution:
    """Look up the way of a connection's packets, as its socket would.

    Args:
      flow: The connection's flow; it has a peer.
      view: The routing cache.
      onlink: Count IPv4's answer "on the link that it is bound to, whatever the tables say" as a route.
    """
    assert flow.peer is not None
    return view.lookup(
        flow.peer,
        source=flow.local,
        mark=flow.mark,
        oif=flow.device,
        tos=0 if _ignores_class(flow) else flow.tos,
        uid=flow.uid,
        # Rules can select by these, and a socket's lookups carry them (inet_csk_rebuild_route, inet6_csk_route_socket).
        ip_proto=_PROTOCOLS.get(flow.protocol, 0),
        sport=flow.local_port,
        dport=flow.peer_port,
        strict=flow.device is not None,
        any_source=flow.transparent,
        onlink_fallback=onlink,
    )


def _ignores_class(flow: Flow) -> bool:
    # An IPv6 TCP socket gives connect()'s lookup its traffic class, and none after it (inet6_csk_route_socket; measured:
    # every packet of an accepted one, and of one whose cached route went, took the way for no class).
    return flow.protocol == "tcp" and flow.family != AF_INET


def hops_of(resolution: Resolution, flow: Flow, view: View) -> Hops:
    """The next hops that a flow may take under a resolution; () where there is no path."""
    if resolution.outcome is not Outcome.ROUTED:
        return ()
    if resolution.kind is Kind.LOCAL:
        return LOCAL_HOPS
    kind = resolution.kind
    hops = tuple(Hop(kind, hop.ifindex, hop.gateway) for hop in resolution.hops)
    if not resolution.multipath or flow.family != AF_INET:
        return hops
    # With the source given, IPv4 always takes the live member whose own address it is (fib_select_path).
    return tuple(hop for hop in hops if _holds(hop, flow, view)) or hops


def judge(flow: Flow, known: Hops, view: View, *, onlink: bool = False, before: Resolution | None = None) -> Finding:
    """Say what became of a connection's path.

    Args:
      flow: The connection's flow. One that is `unjudged` stays so.
      known: The next hops that are known to carry the connection, first of all those at registration. Without
        any, the first path that works is taken for it.
      view: The routing cache as it is now.
      onlink: See `resolve`.
      before: The resolution under which the connection was last good, if it was.
    """
    if flow.unjudged:
        return Finding(Verdict.UNJUDGED, Resolution(Outcome.NO_ROUTE), ())
    resolution = resolve(flow, view, onlink=onlink)
    now = hops_of(resolution, flow, view)
    verdict = _verdict(flow, known or now, resolution, now, view)
    if verdict is Verdict.UNCHANGED and before is not None and (_is_hashed(before) or _is_hashed(resolution)):
        verdict = _of_members(flow, before, resolution, view)
    return Finding(verdict, resolution, now)


def _verdict(flow: Flow, known: Hops, resolution: Resolution, now: Hops, view: View) -> Verdict:
    if not source_there(flow, view):
        return Verdict.SOURCE_GONE
    if resolution.outcome is not Outcome.ROUTED:
        return Verdict.REJECTED if resolution.outcome.rejects else Verdict.NO_ROUTE
    # Loops rather than sets: there are one or two hops, and an enum's hash is a call into Python.
    if not any(hop.kind is other.kind for hop in now for other in known):
        return Verdict.PEER_MOVED
    if now == LOCAL_HOPS:
        return Verdict.UNCHANGED
    same = [hop for hop in now if hop in known]
    if same:
        if all(link_is_dead(hop.ifindex, view) for hop in same):
            return Verdict.CARRIER_LOST
        return Verdict.GATEWAY_FAILED if _all_failed(now, flow, view) else Verdict.UNCHANGED
    if not any(_holds(hop, flow, view) for hop in (*now, *known)):
        return Verdict.REROUTED
    if any(hop.ifindex == other.ifindex for hop in now for other in known):
        return Verdict.GATEWAY_CHANGED
    return Verdict.EGRESS_CHANGED


def _is_hashed(resolution: Resolution) -> bool:
    # Routers that advertise themselves are several ways and yet no multipath route: one in use stays in use.
    route = resolution.route
    return resolution.multipath and (route is None or route.body.protocol != RTPROT_RA)


def _of_members(flow: Flow, before: Resolution, now: Resolution, view: View) -> Verdict:
    """Say whether a flow may have changed its member of a multipath route, though some members are as before.

    IPv6 picks the member by a hash of the flow that is not to be known here, even against the one whose own address
    the source is, and deals the hashes out anew when a member comes, goes or changes its weight (measured). Where the
    source is on none of their links the flow is routed, whichever it takes.
    """
    if flow.family == AF_INET or before.outcome is not Outcome.ROUTED:
        return Verdict.UNCHANGED
    then, members = (
        {(hop.ifindex, hop.gateway, hop.weight) for hop in resolution.hops} for resolution in (before, now)
    )
    links = {ifindex for ifindex, _, _ in then | members}
    if then == members or not any(flow.local is not None and view.has_address(flow.local, link) for link in links):
        return Verdict.UNCHANGED
    return Verdict.EGRESS_CHANGED if len(links) > 1 else Verdict.GATEWAY_CHANGED


def source_there(flow: Flow, view: View) -> bool:
    """Whether the connection's own address can still be used (rule J2).

    IPv4 sends from any address of this host, on a link that is up or down, and from what a `local` route of
    table 255 covers (__ip_dev_find). IPv6 needs the address where its packets come in: on a link that is up,
    duplicate address detection not failed, tentative or deprecated as it may be; or a lookup that says local.
    """
    address = flow.local
    if address is None or flow.transparent:
        return True
    holders = view.addresses_of(address)
    if address.version == 4:
        return bool(holders) or view.local_route(address) is not None
    if address.is_link_local and flow.device is not None:
        # The same fe80:: address may be on several links, and is another one on each.
        return any(holder.ifindex == flow.device and _usable_ipv6(holder, view) for holder in holders)
    if any(_usable_ipv6(holder, view) for holder in holders):
        return True
    return view.lookup(address, mark=flow.mark, uid=flow.uid).kind is Kind.LOCAL


def _usable_ipv6(holder: Address, view: View) -> bool:
    link = view.link(holder.ifindex)
    return link is not None and link.up and not holder.flags & _IFA_F_DADFAILED


def _holds(hop: Hop, flow: Flow, view: View) -> bool:
    return flow.local is not None and hop.ifindex is not None and view.has_address(flow.local, hop.ifindex)


def _all_failed(hops: Hops, flow: Flow, view: View) -> bool:
    # An on-link peer is its own next hop. One living router is enough: the kernel goes to it by itself.
    assert flow.peer is not None
    peer = flow.peer
    return all(hop.ifindex is not None and view.neighbour_failed(hop.ifindex, hop.gateway or peer) for hop in hops)


def link_is_dead(ifindex: int | None, view: View) -> bool:
    """Whether nothing can pass a link: it is gone, down, or without carrier."""
    link = view.link(ifindex) if ifindex is not None else None
    return link is None or link.dead


# Routing daemons take their routes away when they restart, and bring them back within seconds (linux/rtnetlink.h):
# ZEBRA, BIRD, BABEL, OPENR, BGP, ISIS, OSPF, RIP, EIGRP.
_ROUTING_DAEMONS = frozenset({11, 12, 42, 99, 186, 187, 188, 189, 192})


def has_slow_cause(before: Resolution, view: View) -> bool:
    """Whether a link or a routing daemon took the path away, which both put back only after seconds (rule J3).

    Args:
      before: The resolution under which the connection was last good.
      view: The routing cache as it is now.
    """
    route = before.route
    if route is not None and route.body.protocol in _ROUTING_DAEMONS and not view.has_route(route):
        return True  # one that is there still, and does not serve any more, was not taken away by its daemon
    return any(link_is_dead(hop.ifindex, view) for hop in before.hops)


_PRIVATE = tuple(IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))


def is_likely_translated(flow: Flow, hops: Iterable[Hop], view: View) -> bool:
    """Whether the far side of a new path would probably not know the connection (rule J8), asking nobody.

    A private address (RFC 1918, RFC 6598) reaches a global peer only by translation, and the new path has another
    translator; a point-to-point link without the address (a tunnel, a modem) refuses it or translates.
    """
    local, peer = flow.local, flow.peer
    if local is not None and peer is not None and peer.is_global and any(local in net for net in _PRIVATE):
        return True
    return any(_is_point_to_point(hop.ifindex, view) and not _holds(hop, flow, view) for hop in hops)


def _is_point_to_point(ifindex: int | None, view: View) -> bool:
    link = view.link(ifindex) if ifindex is not None else None
    return link is not None and bool(link.flags & (Link.IFF_POINTOPOINT | Link.IFF_NOARP))


def may_be_stale(flow: Flow, before: Resolution, now: Resolution, view: View) -> bool:
    """Whether the socket may still go the way it went, whatever a lookup says now.

    An IPv6 socket keeps its cached route when a better one appears in another table under a rule that was already
    there; everything else (the old route goes, its own table or the rules change) moves it at once.
    """
    if flow.peer is None or flow.peer.version == 4 or before.route is None or now.route is None:
        return False
    return before.route.table != now.route.table and view.has_route(before.route)
