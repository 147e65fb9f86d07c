"""What subscribers receive: one frozen class per fact, and the JSON form that libwebsockets gives it.

A removal that the cache derived (link down, last address, nexthop object gone) is the same
event as one that the kernel announced; `cause` tells them apart for whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from .connections import Connection, Loss, Verdict
    from .netlink import IPAddress, NextHop
    from .portal import PortalState
    from .routing import Address, Link, Resolution, Route, Rule


@attrs.frozen(kw_only=True)
class Event:
    """A fact about the network or a connection.

    Attributes:
      generation: The cache's generation in which it became true.
      time: `trio.current_time()` when it was published.
    """

    generation: int
    time: float

    def as_smd(self) -> dict[str, str] | None:
        """The event as libwebsockets' system message, or None where it has no form there."""
        return None


@attrs.frozen(kw_only=True)
class RouteAdded(Event):
    """A route appeared in some table."""

    route: Route
    cause: str

    def as_smd(self) -> dict[str, str]:
        """`{"rt": "add"}`."""
        return {"rt": "add"}


@attrs.frozen(kw_only=True)
class RouteRemoved(Event):
    """A route went, announced by the kernel or derived from what was."""

    route: Route
    cause: str

    def as_smd(self) -> dict[str, str]:
        """`{"rt": "del"}`."""
        return {"rt": "del"}


@attrs.frozen(kw_only=True)
class RouteReplaced(Event):
    """A route took another's place in one step."""

    old: Route
    route: Route
    cause: str

    def as_smd(self) -> dict[str, str]:
        """`{"rt": "add"}`."""
        return {"rt": "add"}


@attrs.frozen(kw_only=True)
class LinkUp(Event):
    """A link can carry traffic: it is up and has carrier."""

    link: Link


@attrs.frozen(kw_only=True)
class LinkDown(Event):
    """A link carries nothing any more: set down, without carrier, or gone."""

    link: Link
    cause: str


@attrs.frozen(kw_only=True)
class AddressAdded(Event):
    """A link has a new address."""

    address: Address


@attrs.frozen(kw_only=True)
class AddressRemoved(Event):
    """A link lost an address."""

    address: Address
    cause: str


@attrs.frozen(kw_only=True)
class RuleChanged(Event):
    """A policy rule came (old None) or went (new None)."""

    old: Rule | None
    new: Rule | None


@attrs.frozen(kw_only=True)
class GatewayChanged(Event):
    """The gateways of a table's default routes changed: others, or another preferred; first and last included.

    Attributes:
      family: AF_INET or AF_INET6.
      table: The table's number.
      before: Next hops with a gateway, the preferred first, before.
      after: The same, after; equal to `before` where they went and came back at once: it may be another network's
        gateway of the same address.
    """

    family: int
    table: int
    before: tuple[NextHop, ...]
    after: tuple[NextHop, ...]

    def as_smd(self) -> dict[str, str]:
        """`{"trigger": "cpdcheck", "src": "gw-change"}`."""
        return {"trigger": "cpdcheck", "src": "gw-change"}


@attrs.frozen(kw_only=True)
class ConnectionSuspect(Event):
    """A connection's path broke or moved; it will be ended at its deadline unless that is undone."""

    connection: Connection
    verdict: Verdict


@attrs.frozen(kw_only=True)
class ConnectionRecovered(Event):
    """A suspect connection is good again; `acquitted_by` says what showed it."""

    connection: Connection
    acquitted_by: str


@attrs.frozen(kw_only=True)
class ConnectionRerouted(Event):
    """A connection's path differs, and it does not matter: its address belongs to no link of either path."""

    connection: Connection
    before: Resolution
    after: Resolution


@attrs.frozen(kw_only=True)
class ConnectionLost(Event):
    """A connection was ended. Once per connection."""

    connection: Connection
    loss: Loss


@attrs.frozen(kw_only=True)
class ListenerDown(Event):
    """The address that a listener is bound to is gone; its established connections are judged on their own.

    Attributes:
      address: The address; a link-local one has its link's name as the scope.
      port: The port.
    """

    address: IPAddress
    port: int


@attrs.frozen(kw_only=True)
class ListenerUp(Event):
    """The address that a listener is bound to is back, and connections can come in again.

    Attributes:
      address: The address; a link-local one has its link's name as the scope.
      port: The port.
    """

    address: IPAddress
    port: int


@attrs.frozen(kw_only=True)
class PortalChanged(Event):
    """What is behind the default path changed."""

    before: PortalState
    state: PortalState

    def as_smd(self) -> dict[str, str]:
        """`{"type": "cpd", "result": "OK" | "Captive" | "No internet"}`."""
        return {"type": "cpd", "result": self.state.result}


@attrs.frozen(kw_only=True)
class LinkPortalChanged(Event):
    """What is behind one link changed, by one family. It has no form in libwebsockets, which knows one path only.

    Attributes:
      ifindex: The link.
      family: 4 or 6.
    """

    ifindex: int
    family: int
    before: PortalState
    state: PortalState


@attrs.frozen(kw_only=True)
class PortalExpiring(Event):
    """A network is about to end the session that it granted: time to save one's work, or to prolong it.

    Once for each time that the end comes near; see `PortalState.expires_at`, `bytes_remaining` and `venue`.

    Attributes:
      ifindex: The link; 0 where the network was asked by none in particular.
      family: 4 or 6, by which it was asked; 0 likewise.
      state: What is known of it, with the captive portal API's answer among the evidence.
    """

    ifindex: int
    family: int
    state: PortalState


@attrs.frozen(kw_only=True)
class Woke(Event):
    """The machine slept for more than 20 s, and is awake.

    Attributes:
      slept_seconds: For how long.
    """

    slept_seconds: float


@attrs.frozen(kw_only=True)
class Resynced(Event):
    """Notifications were lost and the tables were read anew; what differed was published as events before this one.

    Attributes:
      reason: What was lost, in words.
      differences: How many events that made.
    """

    reason: str
    differences: int


@attrs.frozen(kw_only=True)
class Lagged(Event):
    """This subscriber was too slow and missed events; what it knows of the tables is out of date."""

    missed: int
