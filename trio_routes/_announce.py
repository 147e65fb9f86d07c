"""From what a batch changed to the events that subscribers receive. Pure but for the publishing."""

from __future__ import annotations

from ._broadcast import Broadcast
from ._events import (
    AddressAdded,
    AddressRemoved,
    Event,
    GatewayChanged,
    LinkDown,
    LinkUp,
    Resynced,
    RouteAdded,
    RouteRemoved,
    RouteReplaced,
    RuleChanged,
)
from .routing import AddressChange, ChangeBatch, LinkChange, RouteChange


def announce(batch: ChangeBatch, broadcast: Broadcast, time: float) -> None:
    """Publish the events of one batch: links, addresses, rules, routes, gateways, and last `Resynced`.

    Args:
      batch: What changed.
      broadcast: Where to. An event that nobody wants is not even made.
      time: `trio.current_time()` for all of them.
    """
    generation = batch.generation
    events: list[Event | None] = []
    if batch.links and (broadcast.wanted(LinkUp) or broadcast.wanted(LinkDown)):
        events += [_of_link(change, generation, time) for change in batch.links]
    if batch.addresses and (broadcast.wanted(AddressAdded) or broadcast.wanted(AddressRemoved)):
        events += [_of_address(change, generation, time) for change in batch.addresses]
    if batch.rules and broadcast.wanted(RuleChanged):
        events += [
            RuleChanged(generation=generation, time=time, old=change.old, new=change.new) for change in batch.rules
        ]
    if batch.routes and (
        broadcast.wanted(RouteRemoved) or broadcast.wanted(RouteAdded) or broadcast.wanted(RouteReplaced)
    ):
        events += [_of_route(change, generation, time) for change in batch.routes]
    for change in batch.gateways:
        events.append(
            GatewayChanged(
                generation=generation,
                time=time,
                family=change.family,
                table=change.table,
                before=change.before,
                after=change.after,
            )
        )
    for event in events:
        if event is not None:
            broadcast.publish(event)
    if batch.resynced:
        differences = batch.earlier + batch.differences()
        broadcast.publish(Resynced(generation=generation, time=time, reason=batch.resynced, differences=differences))


def _of_link(change: LinkChange, generation: int, time: float) -> Event | None:
    was_usable = change.old is not None and not change.old.dead
    if change.new is not None and not change.new.dead:
        return None if was_usable else LinkUp(generation=generation, time=time, link=change.new)
    if was_usable and change.old is not None:
        link = change.new or change.old
        return LinkDown(generation=generation, time=time, link=link, cause=change.cause)
    return None


def _of_address(change: AddressChange, generation: int, time: float) -> Event | None:
    if change.old is None and change.new is not None:
        return AddressAdded(generation=generation, time=time, address=change.new)
    if change.new is None and change.old is not None:
        return AddressRemoved(generation=generation, time=time, address=change.old, cause=change.cause)
    return None  # other flags (tentative, deprecated): it is there, before and after


def _of_route(change: RouteChange, generation: int, time: float) -> Event | None:
    old, new, cause = change.old_route, change.new_route, change.cause
    if new is None:
        return None if old is None else RouteRemoved(generation=generation, time=time, route=old, cause=cause)
    if old is None:
        return RouteAdded(generation=generation, time=time, route=new, cause=cause)
    return RouteReplaced(generation=generation, time=time, old=old, route=new, cause=cause)
