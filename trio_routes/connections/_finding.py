"""What a record adds to the judge: how a registered connection is found now, and whether that says anything new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from ..netlink import AF_INET
from ._clock import good
from ._judge import Finding, View, judge
from ._verdict import Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Acquittal, Connection, Record

MOST_KNOWN_HOPS: Final = 4
_UNCHANGED: Final = good()


def find(connection: Connection, view: View) -> Finding:
    """Judge a connection against what is known of it. Writes nothing, so it may be asked of any view."""
    record = connection.record
    finding = judge(connection.flow, record.known, view, onlink=record.onlink, before=record.before)
    if record.doubted and finding.verdict.keeps:
        # Its path is the same, and whoever translates beyond has had the time to forget it: nothing here tells.
        return attrs.evolve(finding, verdict=Verdict.EGRESS_CHANGED)
    return finding


def find_first(connection: Connection, view: View) -> Finding:
    """Judge a connection for the first time, and note what holds for it from then on."""
    record, flow = connection.record, connection.flow
    record.judged = True
    finding = find(connection, view)
    if finding.verdict is Verdict.NO_ROUTE and flow.device is not None and flow.family == AF_INET:
        # Bound to a link without a route: IPv4 takes the peer to be on the link. Where that was so from the
        # beginning it is the connection's path; later it only hides that the route is gone.
        on_link = judge(flow, record.known, view, onlink=True)
        if on_link.verdict is not Verdict.NO_ROUTE:
            record.onlink, finding = True, on_link
    if flow.local is None and finding.resolution.source is not None:
        # Datagram sockets and connection attempts: the address that the kernel chooses here, from now on.
        connection.flow = attrs.evolve(flow, local=finding.resolution.source)
    record.born_broken = not record.known and finding.verdict.cls is VerdictClass.CERTAIN
    return finding


def is_as_filed(connection: Connection, finding: Finding, view: View) -> bool:
    """Whether a good connection was found exactly as it is filed: what most are, when a change touches many."""
    record = connection.record
    if (
        finding.verdict is not Verdict.UNCHANGED
        or record.stand is not _UNCHANGED
        or record.bundle is None
        or record.acquittal is not None
        or finding.resolution != record.now
    ):
        return False
    links = record.bundle.needs.links
    local = connection.flow.local
    return local is None or all(address.ifindex in links for address in view.addresses_of(local))


def still_holds(acquittal: Acquittal, finding: Finding, ipv6_generation: int) -> bool:
    """Whether what evidence acquitted is found again, and no IPv6 route changed since where that matters (rule J6)."""
    return (
        finding.verdict is acquittal.verdict
        and finding.hops == acquittal.hops
        and acquittal.ipv6_generation in (-1, ipv6_generation)
    )


def learn(record: Record) -> None:
    """Let the path of now join the known ones, first; the oldest goes."""
    older = [hop for hop in record.known if hop not in record.hops]
    record.known = (*record.hops, *older)[:MOST_KNOWN_HOPS]
