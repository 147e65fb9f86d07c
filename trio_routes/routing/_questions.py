"""What can be asked of tables, whether they are the living ones (`Cache`) or as they would be (`Overlay`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from ..netlink import IPAddress
from ._explain import Explanation
from ._lookup import explain, resolve
from ._output_ipv4 import local_route
from ._query import LookupOptions, Query
from ._state import State, bare
from ._values import Address, Link, Resolution, Route


class Questions:
    """Answers about one state of the tables, which whoever inherits from this changes.

    Attributes:
      state: The tables themselves. Read only.
      generation: What the answers carry as theirs.
    """

    def __init__(self, state: State, generation: int = 0) -> None:
        self.state: State = state
        self.generation: int = generation

    def lookup(
        self,
        destination: IPAddress,
        *,
        source: IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        iif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        ip_proto: int = 0,
        sport: int = 0,
        dport: int = 0,
        strict: bool = False,
        any_source: bool = False,
        onlink_fallback: bool = True,
    ) -> Resolution:
        """Answer which way a flow goes; see `Query` for the arguments. Not a checkpoint."""
        # By position, in the order of Query's fields: half a microsecond less than by name.
        query = Query(
            destination,
            source,
            mark,
            oif or 0,
            iif or 0,
            tos,
            uid or 0,
            ip_proto,
            sport,
            dport,
            strict,
            any_source,
            onlink_fallback,
        )
        return resolve(self.state, query, self.generation)

    def explain(self, destination: IPAddress, **as_lookup: Unpack[LookupOptions]) -> Explanation:
        """Answer as `lookup` does, and say how the answer came about. Not a checkpoint."""
        query = Query(
            destination,
            source=as_lookup.get("source"),
            mark=as_lookup.get("mark", 0),
            oif=as_lookup.get("oif") or 0,
            iif=as_lookup.get("iif") or 0,
            tos=as_lookup.get("tos", 0),
            uid=as_lookup.get("uid") or 0,
            ip_proto=as_lookup.get("ip_proto", 0),
            sport=as_lookup.get("sport", 0),
            dport=as_lookup.get("dport", 0),
            strict=as_lookup.get("strict", False),
            any_source=as_lookup.get("any_source", False),
            onlink_fallback=as_lookup.get("onlink_fallback", True),
        )
        return explain(self.state, query, self.generation)

    @property
    def links(self) -> Mapping[int, Link]:
        """The links by ifindex."""
        return self.state.links

    def link(self, ifindex: int) -> Link | None:
        """One link, or None if there is none of that number."""
        return self.state.links.get(ifindex)

    def has_address(self, address: IPAddress, ifindex: int) -> bool:
        """Whether a link has an address that counts as there (not DADFAILED)."""
        return self.state.has_address(address, ifindex)

    def addresses_of(self, address: IPAddress) -> tuple[Address, ...]:
        """This address wherever a link has it."""
        return self.state.addresses.of(address)

    def local_route(self, address: IPAddress) -> Route | None:
        """The `local` route of table 255 that covers an address, or None."""
        return local_route(self.state, address)

    def has_route(self, route: Route) -> bool:
        """Whether a route is in its table, just as it is given."""
        body = route.body
        return body in self.state.tables[body.family].at((body.table, body.prefix_length, route.address))

    def neighbour_failed(self, ifindex: int, address: IPAddress) -> bool:
        """Whether the kernel has given up resolving a neighbour (NUD_FAILED)."""
        return (ifindex, bare(address)) in self.state.failed
