"""`what_if`: what it says is what then happens, and asking leaves everything as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from ipaddress import ip_address

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.connections._world import LOCAL, OTHER_PEER, UPLINK, V6_PEER, World, flow_to, standing_of
from trio_routes import AddressRemoved, LinkDown, RouteRemoved
from trio_routes.connections import Connection, Connections, Fate, Flow, Forecast, Policy, Standing, Verdict
from trio_routes.netlink import AF_INET, AF_INET6, AddressMessage, IPAddress, LinkMessage, NextHop, RouteBody
from trio_routes.routing import Route

SECOND = 3
NEIGHBOUR = ip_address("10.0.0.9")


@attrs.define(eq=False)
class Bench:
    """A world with a second link, whose default route is the worse one if it has any."""

    world: World
    registry_of: Connections = attrs.field(init=False)
    streams: list[object] = attrs.field(factory=list[object])

    def __attrs_post_init__(self) -> None:
        world = self.world
        self.registry_of = Connections(world.registry, world.cache)
        world.cache.apply_link(LinkMessage(SECOND, "second", 0x10041), gone=False)
        world.cache.apply_address(AddressMessage(AF_INET, SECOND, ip_address("10.0.5.2"), 24), gone=False)
        world.apply()

    def add_second_default(self) -> None:
        hop = NextHop(SECOND, ip_address("10.0.5.1"))
        self.world.cache.add_route(0, RouteBody(AF_INET, 254, 0, priority=900, nexthops=(hop,)), 0)
        self.world.apply()

    def register(self, peer: IPAddress, policy: Policy | None = None) -> Connection:
        flow = flow_to(peer)
        if peer.version == 6:
            flow = Flow(peer=peer, peer_port=443, local=ip_address("fd00::2"), local_port=40000)
        stream = self.world.stream(peer)[0]
        self.streams.append(stream)
        return self.world.registry.register(stream, flow=flow, policy=policy)

    def what_if(self, *changes: object) -> Forecast:
        return self.registry_of.what_if(*changes)  # type: ignore[arg-type]  # wrong ones too

    def state(self) -> object:
        """Everything that asking must not change."""
        world = self.world
        records = {
            connection: {name: getattr(connection.record, name) for name in attrs.fields_dict(type(connection.record))}
            for connection in world.registry
        }
        court = world.registry.court
        return (
            world.cache.generation,
            list(world.cache.routes()),
            dict(world.cache.links),
            list(world.cache.addresses()),
            records,
            dict(court.docket.dirty),
            copy.copy(court.counters),
            list(world.events),
            court.docket.next_time,
        )


@pytest.fixture
async def bench(world: World) -> Bench:
    return Bench(world)


Happens = Callable[[World], None]


def link_goes_down(world: World) -> None:
    world.cache.apply_link(LinkMessage(UPLINK, "uplink", 0), gone=False)
    address = ip_address("fd00::2")
    world.cache.apply_address(AddressMessage(AF_INET6, UPLINK, address, 64), gone=True)
    world.apply()


def address_goes(world: World) -> None:
    world.cache.apply_address(AddressMessage(AF_INET, UPLINK, LOCAL, 24), gone=True)
    for route in list(world.cache.routes()):
        if route.table == 255 and route.address == int(LOCAL):
            world.cache.remove_route(route.address, route.body)
    world.apply()


def carrier_goes(world: World) -> None:
    world.set_carrier(False)
    world.apply()


def ipv4_default_goes(world: World) -> None:
    world.remove_default(AF_INET)


def both_defaults_go(world: World) -> None:
    world.remove_default()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    ("words", "happens"),
    [
        (["link uplink down"], link_goes_down),
        (["link uplink without carrier"], carrier_goes),
        ([f"address {LOCAL} gone"], address_goes),
        (["route 0.0.0.0/0 dev uplink gone"], ipv4_default_goes),
        (["route default dev uplink gone"], both_defaults_go),
        (["route 0.0.0.0/0 via 10.0.0.1 gone", "route ::/0 via fd00::1 gone"], both_defaults_go),
    ],
)
async def test_what_it_says_is_what_then_happens(
    bench: Bench, words: list[str], happens: Happens, second: bool, autojump_clock: MockClock
) -> None:
    if second:
        bench.add_second_default()
    connections = [bench.register(peer) for peer in (OTHER_PEER, NEIGHBOUR, V6_PEER)]
    before = bench.state()
    forecast = bench.what_if(*words)
    assert bench.state() == before
    said = {prospect.connection: prospect for prospect in forecast.prospects}
    assert said
    began = trio.current_time()
    happens(bench.world)
    for connection in connections:
        if connection not in said:
            assert (connection.verdict, standing_of(connection)) == (Verdict.UNCHANGED, Standing.GOOD)
            continue
        prospect = said[connection]
        assert connection.verdict is prospect.verdict
        assert connection.now == prospect.after
        assert connection.deadline == began + prospect.wait or prospect.fate is Fate.SUSPECT
    await trio.sleep(20)
    for connection, prospect in said.items():
        loss = connection.loss
        if prospect.fate is Fate.ENDED:
            assert loss is not None
            assert loss.time == began + prospect.wait
            assert loss.evidence == ""
        elif prospect.fate is Fate.ASKED:
            assert loss is None or "asked" in loss.evidence
        else:
            assert loss is None


async def test_its_words(bench: Bench) -> None:
    bench.add_second_default()
    bench.register(OTHER_PEER)
    bench.register(V6_PEER)
    ended = "tcp [fd00::2]:40000 -> [2001:db8:7::7]:443: ended after 1 s: no route; path none: no route"
    asked = "tcp 10.0.0.2:40000 -> 203.0.113.9:5432: asked after 1 s: egress changed; path via 10.0.5.1 dev second"
    assert str(bench.what_if("route default dev uplink gone")).splitlines() == [
        "if route default dev uplink gone: 1 ended, 1 asked, 0 suspect, 0 kept",
        f"  {ended}",
        f"  {asked}, by 0.0.0.0/0 metric 900 in table 254",
    ]


async def test_things_and_events_say_the_same_as_words(bench: Bench) -> None:
    bench.add_second_default()
    for peer in (OTHER_PEER, NEIGHBOUR, V6_PEER):
        bench.register(peer)
    cache = bench.world.cache
    link = cache.links[UPLINK]
    (address,) = cache.addresses_of(LOCAL)
    route = Route(bench.world.default(AF_INET), 0)
    down = attrs.evolve(link, flags=0)
    silent = attrs.evolve(link, flags=1)
    same: list[tuple[str, list[object]]] = [
        ("link uplink gone", [link]),
        ("link uplink down", [LinkDown(generation=0, time=0, link=down, cause="")]),
        ("link uplink without carrier", [LinkDown(generation=0, time=0, link=silent, cause="")]),
        (
            f"address {LOCAL} dev uplink gone",
            [address, AddressRemoved(generation=0, time=0, address=address, cause="")],
        ),
        (
            "route 0.0.0.0/0 dev uplink metric 0 table 254 gone",
            [route, RouteRemoved(generation=0, time=0, route=route, cause="")],
        ),
    ]
    for words, things in same:
        for thing in things:
            assert bench.what_if(thing).prospects == bench.what_if(words).prospects != ()


async def test_a_link_that_is_given_itself_is_known_by_its_number(bench: Bench) -> None:
    """It was renamed since, and another has its name now."""
    bench.register(OTHER_PEER)
    cache = bench.world.cache
    link = cache.links[UPLINK]
    cache.apply_link(LinkMessage(UPLINK, "wan", link.flags), gone=False)
    cache.apply_link(LinkMessage(77, "uplink", link.flags), gone=False)
    bench.world.apply()
    assert bench.what_if(link).prospects == bench.what_if("link wan gone").prospects != ()
    assert bench.what_if(link).changes == ("link wan gone",)
    made_anew = attrs.evolve(link, ifindex=78)
    assert bench.what_if(made_anew).changes == ("link uplink gone",)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "link uplink",
        "link nowhere down",
        "link uplink sideways",
        "address 192.0.2.1 gone",
        f"address {LOCAL} dev second gone",
        "address nonsense gone",
        "route 192.0.2.0/24 gone",
        "route default dev second gone",
        "route default metric 5 gone",
        "route default dev gone",
        "route default dev uplink dev uplink gone",
        "route default nonsense uplink gone",
        "route 10.0.0.0/8",
    ],
)
async def test_what_is_not_there_or_not_understood_is_an_error(bench: Bench, words: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        bench.what_if(words)


async def test_anything_else_is_a_type_error(bench: Bench) -> None:
    with pytest.raises(TypeError, match="words, a route"):
        bench.what_if(7)


async def test_of_a_thing_that_is_gone_already_nothing_more_can_go(bench: Bench) -> None:
    route = Route(bench.world.default(AF_INET), 0)
    bench.world.remove_default(AF_INET)
    with pytest.raises(ValueError, match="there is no such route"):
        bench.what_if(route)
    with pytest.raises(ValueError, match="there is no link"):
        bench.what_if("link uplink gone", "link uplink down")


async def test_policies_and_slow_causes_count(bench: Bench) -> None:
    immediate = bench.register(OTHER_PEER, Policy.immediate())
    patient = bench.register(OTHER_PEER, Policy.patient())
    never = bench.register(OTHER_PEER, Policy(no_route=float("inf")))
    careless = bench.register(OTHER_PEER, Policy(no_route=None))
    plain = bench.register(OTHER_PEER)
    waits = {
        prospect.connection: (prospect.fate, prospect.wait) for prospect in bench.what_if("link uplink down").prospects
    }
    assert waits[immediate] == (Fate.ENDED, 0)
    assert waits[patient] == (Fate.ENDED, 60)
    assert waits[plain] == (Fate.ENDED, 6)
    forecast = bench.what_if("route default dev uplink gone")
    assert set(forecast.ended) == {immediate, patient, plain}
    assert forecast.suspect == (never,)
    assert forecast.kept == (careless,)


async def test_a_connection_whose_turn_has_not_come_is_compared_with_the_tables_as_they_are(bench: Bench) -> None:
    connection = bench.register(OTHER_PEER)
    bench.world.cache.remove_route(0, bench.world.default(AF_INET))
    bench.world.registry.court.touch(bench.world.cache.take_changes())
    assert connection in bench.world.registry.court.docket.dirty
    bench.add_second_default()
    forecast = bench.what_if("link uplink without carrier")
    assert forecast.prospects == (), "its path is by the other link already"


async def test_unmonitored_nothing_would_happen(bench: Bench) -> None:
    bench.register(OTHER_PEER)
    bench.world.monitoring = False
    assert bench.what_if("link uplink gone").prospects == ()
