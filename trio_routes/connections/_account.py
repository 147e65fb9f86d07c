"""An account of one connection in plain words: its path, what changed, what the judge says, what is awaited.

It says what the registry knows and decides nothing. The rules that it names are those of docs/verdicts.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import trio

from ..routing import Kind, Outcome, Resolution, Route
from . import _clock as clock
from ._judge import View, has_slow_cause
from ._verdict import Standing, Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Connection, Record
    from ._court import Court


@attrs.frozen(kw_only=True)
class Account:
    """What there is to say of a connection at one moment; `str()` puts it into a few lines.

    Attributes:
      connection: Which.
      standing: How it stands.
      verdict: What the judge says of its path.
      path: The way its packets go now, in words.
      before: The way they went when it was last good; "" where that is the same.
      change: What happened, in the kernel's words; "" where nothing did.
      judgement: What the judge says, and by which rule.
      awaited: What will become of it, and until when.
    """

    connection: Connection
    standing: Standing
    verdict: Verdict
    path: str
    before: str
    change: str
    judgement: str
    awaited: str

    def __str__(self) -> str:
        parts = {
            "path": self.path,
            "before": self.before,
            "changed": self.change,
            "judged": self.judgement,
            "awaited": self.awaited,
        }
        lines = [f"{self.connection}: {self.standing.value}"]
        lines += [f"  {name:8} {text}" for name, text in parts.items() if text]
        return "\n".join(lines)


def account_of(connection: Connection, court: Court) -> Account:
    """Say how a connection stands; one that waits for its turn is judged first. Not a checkpoint."""
    standing, verdict = connection.standing, connection.verdict
    record, view = connection.record, court.cache
    path = path_text(record.now, view) if record.judged else "not looked up"
    before = path_text(record.before, view) if record.judged else path
    loss = record.loss
    return Account(
        connection=connection,
        standing=standing,
        verdict=verdict,
        path=path,
        before="" if before == path else before,
        change=_change(connection, record.cause if loss is None else loss.cause, view),
        judgement=f"{verdict.value}: {'; '.join(_judgement(connection, verdict, court))}",
        awaited=_awaited(connection, court),
    )


def path_text(resolution: Resolution, view: View) -> str:
    """A path in words, links by their names: "via 10.0.0.1 dev wlan0, by 0.0.0.0/0 metric 600 in table 254"."""
    route = resolution.route
    if resolution.outcome is not Outcome.ROUTED:
        by = "" if route is None else f", by {route.destination} in table {route.table}"
        by = by or ("" if resolution.rule is None else f", by rule {resolution.rule.priority}")
        return f"none: {resolution.outcome.value}{by}"
    if resolution.kind is Kind.LOCAL:
        return "this host itself"
    ways = " or ".join(
        (f"via {hop.gateway} " if hop.gateway else "") + f"dev {link_name(hop.ifindex, view)}"
        for hop in resolution.hops
    )
    if route is None:
        return f"{ways}, by no route"
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{ways}, by {route.destination}{metric} in table {route.table}"


def _change(connection: Connection, cause: str, view: View) -> str:
    """What happened, in words: a bare message says of which route or address it speaks."""
    record = connection.record
    before, now = record.before.route, record.now.route
    if not cause.startswith("RTM_"):
        return cause
    if record.stand.verdict is Verdict.SOURCE_GONE:
        return f"its address {connection.flow.local} went ({cause})"
    if before is not None and (now is None if record.loss is not None else not view.has_route(before)):
        return f"its route {_route_text(before, view)} went ({cause})"
    if now is not None and now != before:
        return f"route {_route_text(now, view)} decides now ({cause})"
    return cause


def _route_text(route: Route, view: View) -> str:
    hops = ", ".join(
        (f"via {hop.gateway} " if hop.gateway else "") + f"dev {link_name(hop.ifindex, view)}" for hop in route.nexthops
    )
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{route.destination}{' ' if hops else ''}{hops}{metric} in table {route.table}"


def link_name(ifindex: int, view: View) -> str:
    """A link's name; its number where there is no such link any more."""
    link = view.link(ifindex)
    return f"if{ifindex}" if link is None else link.name


# ---- what the judge says -----------------------------------------------------------------------

_REASONS = {
    Verdict.UNCHANGED: "a next hop of now is one that is known to carry it",
    Verdict.REROUTED: "its address is on no link of the old path or the new, so whoever routes finds it either way",
    Verdict.SOURCE_GONE: "its own address {local} is not there (rule J2)",
    Verdict.NO_ROUTE: "a lookup for this very flow finds nothing (rule J1)",
    Verdict.REJECTED: "a lookup for this very flow is rejected (rule J1)",
    Verdict.PEER_MOVED: "the peer's address {peer} became this host's own, or stopped being it",
    Verdict.EGRESS_CHANGED: "its packets leave by another link, and no local fact tells whether the far side takes that",
    Verdict.GATEWAY_CHANGED: "its packets go to another gateway, and no local fact tells whether the far side takes that",
    Verdict.CARRIER_LOST: "its path is as it was, and the link is down or without carrier",
    Verdict.GATEWAY_FAILED: "no next hop answers neighbour discovery, which may be the peer's own affair",
}


def _judgement(connection: Connection, verdict: Verdict, court: Court) -> Iterator[str]:
    record, flow = connection.record, connection.flow
    if verdict is Verdict.UNJUDGED:
        yield _why_unjudged(connection, court)
        return
    if record.doubted:
        yield "its path is as it was, and whoever translates may have forgotten it while the machine slept (rule J7)"
    else:
        yield _REASONS[verdict].format(local=flow.local, peer=flow.peer)
    if record.born_broken:
        yield "it was so when it was registered (rule J1)"
    stand, loss = record.stand, record.loss
    if loss is not None and loss.evidence:
        yield loss.evidence
    if stand.standing is not Standing.GOOD or verdict.keeps:
        return
    if record.acquittal is None:
        yield "its policy ignores that"
    else:
        yield f"overruled by {record.acquittal.by or 'evidence'} (rule J4)"


def _why_unjudged(connection: Connection, court: Court) -> str:
    if connection.flow.unjudged:
        return connection.flow.unjudged
    if connection.record.unfit:
        return "it has ended of itself, or lives though the tables say that it cannot (rule J1)"
    return "the kernel's tables are not followed" if court.blind else "the kernel's tables are being read"


# ---- what is awaited ---------------------------------------------------------------------------


def _awaited(connection: Connection, court: Court) -> str:
    record, t = connection.record, trio.current_time()
    stand = record.stand
    if record.loss is not None:
        return f"nothing: it was ended {t - record.loss.time:.1f} s ago"
    if record.references <= 0:
        return "nothing: nobody guards it any more"
    if not stand.suspect:
        if record.acquittal is not None and record.acquittal.ipv6_generation >= 0:
            return "the next change of an IPv6 route, at which its socket may take another way (rule J6)"
        return "nothing"
    if court.adjourned:
        return "that the kernel's tables are known again; until then nobody is judged"
    left = f"{max(stand.deadline - t, 0):.1f} s"
    if stand.mode is clock.Mode.ASKING:
        asked = "its own probe's answer" if record.probe is not None else "the far side's answer to keepalive"
        return f"{asked} for {left}{_one_answer(record)}; silence ends it (rule J5)"
    if stand.mode is clock.Mode.LEFT:
        return "a change, or a sign of life: nobody can be asked, and nothing says that it is dead (rule J8)"
    if math.isinf(stand.deadline):
        return "a change, or a sign of life: its policy does not end it for this"
    return f"that this is undone within {left}; else {_then(connection, court)}{_why_so_long(connection, court.cache)}"


def _one_answer(record: Record) -> str:
    return f" ({record.stand.note} so far)" if record.stand.note else ""


def _then(connection: Connection, court: Court) -> str:
    match court.decision(connection):
        case clock.Decision.CLOSE:
            by = " (rule J8)" if connection.record.stand.verdict.cls is VerdictClass.UNCERTAIN else ""
            return f"it is ended{by}"
        case clock.Decision.ASK:
            whom = "its own probe" if connection.record.probe is not None else "the far side"
            return f"{whom} is asked (rule J5)"
        case clock.Decision.LEAVE:
            return "it is left as it is, for nobody can be asked (rule J8)"


def _why_so_long(connection: Connection, view: View) -> str:
    """Why it is given more time than its policy's number for the verdict; "" where it is not."""
    record, policy, why = connection.record, connection.policy, ""
    slow = has_slow_cause(record.before, view)
    wait = policy.wait(record.stand.verdict, slow=slow)
    if wait != policy.wait(record.stand.verdict, slow=False):
        why = ". It waits longer because a link or a routing daemon is the cause (rule J3)"
    if wait and record.stand.since is not None and clock.damped(wait, record.returns, record.stand.since) > wait:
        why += ". It waits longer because its path came and went several times within a minute (rule J7)"
    return why
