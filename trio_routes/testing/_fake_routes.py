"""The routing tables of one family in a fake kernel: how routes come and go, and what is said of it.

What a real kernel announces, and what it does without a word (measured on Linux 6.18, docs/kernel.md):

    what happens                 IPv4                                IPv6
    ---------------------------  ----------------------------------  ---------------------------------------
    add                          CREATE|EXCL; kernel's own beside    CREATE|EXCL; CREATE where the prefix has
                                 one of that metric CREATE|APPEND    routes already, or for several next hops
    replace                      REPLACE; by itself: nothing         REPLACE, also by itself
    link set down                silent                              a DELROUTE each; a group loses members
                                                                     silently, and goes when the last one dies
    link deleted                 silent, whole groups too            groups lose the members there, announced
    members dying and reviving   silent                              silent

A group of IPv6 siblings is one body with several next hops here, as it is in a dump. DEAD and
LINKDOWN are not stored at all but shown as the links are when somebody looks, which is just what
makes them silent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs

from ..netlink import (
    AF_INET,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNICAST,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    IPAddress,
    MessageType,
    NextHop,
    RouteBody,
    RouteMessage,
)

NodeKey: TypeAlias = tuple[int, int, int]
"""Table, prefix length in bits, the prefix's address as an integer."""
Announce: TypeAlias = Callable[[MessageType, int, RouteMessage], None]


def refuse(number: int, why: str) -> OSError:
    """Return the OSError (of the right subclass) with which the kernel would refuse something."""
    return OSError(number, f"{os.strerror(number)}: {why}")


class FakeRoutes:
    """All tables of one family.

    Args:
      family: AF_INET or AF_INET6.
      announce: Called with each notification: type, flags, message.
      hop_flags: Tells RTNH_F_DEAD and RTNH_F_LINKDOWN of a link as it is now.
    """

    def __init__(self, family: int, announce: Announce, hop_flags: Callable[[int], int]) -> None:
        self.family = family
        self._ipv4 = family == AF_INET
        self._announce = announce
        self._hop_flags = hop_flags
        self._nodes: dict[NodeKey, list[RouteBody]] = {}

    # ---- what is there ---------------------------------------------------------------------

    def keys(self, table: int = 0) -> list[NodeKey]:
        """The prefixes in the order of a dump, of one table or (0) of all."""
        found = [key for key in self._nodes if table in (0, key[0])]
        # Tables lie in 256 buckets by their number's low byte. In a table, by address; IPv6's default route, at the
        # root of the tree, comes last, and of several prefixes with one address IPv4 has the longest first.
        if self._ipv4:
            return sorted(found, key=lambda key: (key[0] & 0xFF, key[0], key[2], -key[1]))
        return sorted(found, key=lambda key: (key[0] & 0xFF, key[0], key[1] == 0, key[2], key[1]))

    def at(self, key: NodeKey) -> Iterator[RouteMessage]:
        """The routes of one prefix as a dump shows them, in the order in which a lookup tries them."""
        for body in self._nodes.get(key, ()):
            yield RouteMessage(self._shown(body), key[2])

    def usable_hops(self, body: RouteBody) -> tuple[NextHop, ...]:
        """The next hops that a lookup would take."""
        return tuple(hop for hop in body.nexthops if not self._hop_flags(hop.ifindex) & RTNH_F_DEAD)

    def matching(self, table: int, destination: IPAddress) -> Iterator[RouteBody]:
        """The routes of a table that cover an address, in the order in which a lookup tries them."""
        bits = destination.max_prefixlen
        for length in range(bits, -1, -1):
            prefix = int(destination) >> (bits - length) << (bits - length)
            yield from self._nodes.get((table, length, prefix), ())

    def _shown(self, body: RouteBody) -> RouteBody:
        hops = tuple(self._shown_hop(body, hop) for hop in body.nexthops)
        return body if hops == body.nexthops else attrs.evolve(body, nexthops=hops)

    def _shown_hop(self, body: RouteBody, hop: NextHop) -> NextHop:
        if body.type == RTN_LOCAL:
            return hop  # to itself a host needs no link
        return attrs.evolve(hop, flags=hop.flags | self._hop_flags(hop.ifindex))

    # ---- routes come and go ----------------------------------------------------------------

    def add(self, body: RouteBody, destination: int, *, kernels_own: bool = False) -> None:
        """Add a route, and announce it.

        Args:
          body: All but the destination's address.
          destination: The destination's address.
          kernels_own: A connected or local route: it may lie beside others of its metric.

        Raises:
          FileExistsError: A route of this metric is there.
        """
        node = self._nodes.setdefault(_key(body, destination), [])
        same_metric = any(each.priority == body.priority for each in node)
        if same_metric and not kernels_own:
            raise refuse(errno.EEXIST, "a route of this metric is there; replace it, or give another metric")
        if self._ipv4:
            flags = NLM_F_CREATE | (NLM_F_APPEND if same_metric else NLM_F_EXCL)
        else:
            flags = NLM_F_CREATE | (0 if node or body.multipath else NLM_F_EXCL)
        # After the last of its metric, before the first of a greater one.
        node.insert(sum(each.priority <= body.priority for each in node), body)
        self._tell(MessageType.RTM_NEWROUTE, flags, self._shown(body), destination)

    def replace(self, body: RouteBody, destination: int) -> None:
        """Put a route in the place of the first of its metric, or add it."""
        node = self._nodes.get(_key(body, destination), [])
        places = [index for index, each in enumerate(node) if each.priority == body.priority]
        if not self._ipv4:
            # A route with gateways takes the place of such a route, a device route that of a device route.
            places.sort(key=lambda index: _has_gateway(node[index]) != _has_gateway(body))
        if not places:
            self.add(body, destination)
            return
        if self._ipv4 and node[places[0]] == body:
            return
        node[places[0]] = body
        self._tell(MessageType.RTM_NEWROUTE, NLM_F_REPLACE, self._shown(body), destination)

    def delete(self, key: NodeKey, matches: Callable[[RouteBody], bool]) -> bool:
        """Remove the first route of a prefix that `matches`, and announce it; False if there is none."""
        body = next(filter(matches, self._nodes.get(key, ())), None)
        if body is None:
            return False
        self._remove(key, body)
        self._tell(MessageType.RTM_DELROUTE, 0, body, key[2])
        return True

    def delete_sibling(self, key: NodeKey, matches: Callable[[NextHop], bool]) -> bool:
        """Take one next hop out of a group of IPv6 siblings, and announce it; False if there is none such."""
        for body in self._nodes.get(key, ()):
            for hop in body.nexthops if body.multipath else ():
                if matches(hop):
                    self._shrink(key, body, hop)
                    self._tell(MessageType.RTM_DELROUTE, 0, _alone(body, hop), key[2])
                    return True
        return False

    # ---- what links and addresses do to routes ---------------------------------------------

    def link_stopped(self, ifindex: int) -> None:
        """Remove what cannot be used any more, now that `ifindex` passes nothing of this family."""
        for key, body in self._through(ifindex):
            if self.usable_hops(body) or (self._ipv4 and body.type == RTN_LOCAL):
                continue  # a local address of IPv4 stays reachable from this host
            self._remove(key, body)
            if not self._ipv4:
                for hop in body.nexthops:
                    # Siblings that had died before are named as dead; those that die now are not yet marked.
                    named = hop if hop.ifindex == ifindex else self._shown_hop(body, hop)
                    self._tell(MessageType.RTM_DELROUTE, 0, _alone(body, named), key[2])

    def link_deleted(self, ifindex: int) -> None:
        """Remove what still names `ifindex`, which is no more."""
        for key, body in self._through(ifindex):
            if self._ipv4:
                self._remove(key, body)
                continue
            for hop in (hop for hop in body.nexthops if hop.ifindex == ifindex):
                self._shrink(key, body, hop)
                body = next((each for each in self._nodes.get(key, ()) if _same_group(each, body)), body)
                dead = attrs.evolve(hop, flags=RTNH_F_DEAD | RTNH_F_LINKDOWN)
                self._tell(MessageType.RTM_DELROUTE, 0, _alone(body, dead), key[2])

    def source_deleted(self, address: IPAddress) -> None:
        """Do what the kernel does to routes whose preferred source is no address of this host any more.

        IPv4: those of the main table go, others keep a source that is not there. IPv6: all lose it silently.
        """
        for key, node in list(self._nodes.items()):
            for body in [body for body in node if body.prefsrc == address]:
                if not self._ipv4:
                    node[node.index(body)] = attrs.evolve(body, prefsrc=None)
                elif key[0] == RT_TABLE_MAIN:
                    self._remove(key, body)
                    self._tell(MessageType.RTM_DELROUTE, 0, body, key[2])

    # ---- helpers ---------------------------------------------------------------------------

    def _through(self, ifindex: int) -> list[tuple[NodeKey, RouteBody]]:
        return [
            (key, body)
            for key in self.keys()
            for body in self._nodes[key]
            if any(hop.ifindex == ifindex for hop in body.nexthops)
        ]

    def _remove(self, key: NodeKey, body: RouteBody) -> None:
        node = self._nodes[key]
        node.remove(body)
        if not node:
            del self._nodes[key]

    def _shrink(self, key: NodeKey, body: RouteBody, gone: NextHop) -> None:
        rest = tuple(hop for hop in body.nexthops if hop is not gone)
        if not rest:
            self._remove(key, body)
            return
        node = self._nodes[key]
        node[node.index(body)] = attrs.evolve(body, nexthops=rest, multipath=len(rest) > 1)

    def _tell(self, kind: MessageType, flags: int, body: RouteBody, destination: int) -> None:
        self._announce(kind, flags, RouteMessage(body, destination))


def _key(body: RouteBody, destination: int) -> NodeKey:
    return body.table, body.prefix_length, destination


def _alone(body: RouteBody, hop: NextHop) -> RouteBody:
    """The route of one sibling, as a DELROUTE names it."""
    return attrs.evolve(body, nexthops=(hop,), multipath=False)


def _has_gateway(body: RouteBody) -> bool:
    return body.type == RTN_UNICAST and any(hop.gateway is not None for hop in body.nexthops)


def _same_group(one: RouteBody, other: RouteBody) -> bool:
    return one.priority == other.priority and bool(set(one.nexthops) & set(other.nexthops))
