"""A fake kernel's routing and peers: what `connect_tcp` does, and what operations are refused."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_routes.netlink import AF_INET6
from trio_routes.testing import FakeKernel, FakeLink, FakeStream

PEER = ip_address("198.51.100.7")
PEER6 = ip_address("2001:db8:7::7")


async def echo(stream: FakeStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def connected() -> tuple[FakeKernel, FakeLink]:
    kernel = FakeKernel()
    wlan0 = kernel.add_link("wlan0")
    for address in ("192.0.2.2/24", "10.0.0.2/24", "2001:db8::2/64"):
        wlan0.add_address(address)
    kernel.add_route("default", via="192.0.2.1")
    kernel.add_route("default", via="2001:db8::1")
    return kernel, wlan0


async def source_of(kernel: FakeKernel, peer: str, **options: str) -> str:
    """The address from which a connection to a peer goes out."""
    where = ip_address(peer)
    kernel.listen(where, 80, echo)
    stream = await kernel.connect_tcp(where, 80, **options)  # type: ignore[arg-type]  # only device= is given here
    await stream.aclose()
    return str(stream.flow.local)


async def test_a_connection_reaches_the_handler_and_knows_its_flow() -> None:
    kernel, wlan0 = connected()
    async with kernel:
        kernel.listen("198.51.100.7", 5432, echo, name="db.example")
        (address,) = await kernel.resolve("db.example", 5432)
        with assert_checkpoints():
            stream = await kernel.connect_tcp(address, 5432, device="wlan0", mark=7)
        flow = stream.flow
        assert (flow.peer, flow.peer_port, flow.local) == (PEER, 5432, ip_address("192.0.2.2"))
        assert (flow.device, flow.mark, flow.protocol, flow.unjudged) == (wlan0.ifindex, 7, "tcp", "")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_names_are_those_given_and_no_others() -> None:
    kernel = FakeKernel()
    kernel.add_name("db.example", "192.0.2.7", "2001:db8::7")
    kernel.add_name("db.example", "192.0.2.7", "192.0.2.8")
    assert list(map(str, await kernel.resolve("db.example", 1))) == ["192.0.2.7", "2001:db8::7", "192.0.2.8"]
    assert await kernel.resolve("192.0.2.9", 1) == [ip_address("192.0.2.9")]
    with assert_checkpoints(), pytest.raises(socket.gaierror, match=r"nowhere\.example"):
        await kernel.resolve("nowhere.example", 1)


async def test_connecting_fails_as_the_tables_have_it() -> None:
    kernel, _ = connected()
    for prefix, kind in (
        ("203.0.113.0/26", "unreachable"),
        ("203.0.113.64/26", "prohibit"),
        ("203.0.113.128/26", "blackhole"),
    ):
        kernel.add_route(prefix, type=kind)  # type: ignore[arg-type]  # a tuple's literal is just a str
    with pytest.raises(ConnectionRefusedError):
        await kernel.connect_tcp(PEER, 1)
    for address, number in (
        ("203.0.113.1", errno.EHOSTUNREACH),
        ("203.0.113.65", errno.EACCES),
        ("203.0.113.129", errno.EINVAL),
    ):
        with pytest.raises(OSError, match="says so") as caught:
            await kernel.connect_tcp(ip_address(address), 1)
        assert caught.value.errno == number
    kernel.delete_route("default", via="192.0.2.1")
    with pytest.raises(OSError, match="no route") as caught:
        await kernel.connect_tcp(PEER, 1)
    assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(OSError, match="no link eth7"):
        await kernel.connect_tcp(PEER, 1, device="eth7")
    with pytest.raises(OSError, match=r"203\.0\.113\.200") as caught:
        await kernel.connect_tcp(PEER, 1, local_address=ip_address("203.0.113.200"))
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_the_route_chooses_the_source() -> None:
    kernel, wlan0 = connected()
    eth0 = kernel.add_link("eth0")
    eth0.add_address("198.18.0.2/24")
    eth0.add_address("2001:db8:1::2/64")
    kernel.add_route("203.0.113.0/24", via="10.0.0.1")
    kernel.add_route("203.0.114.0/24", via="192.0.2.1", source="198.18.0.2")
    kernel.add_route("default", via="198.18.0.1", table=100)
    kernel.add_rule(destination="203.0.115.0/24", table=100)
    kernel.add_rule(oif="eth0", table=100)
    kernel.add_route("2001:db8:9::/48", via="2001:db8:1::1")
    async with kernel:
        assert await source_of(kernel, "198.51.100.7") == "192.0.2.2"  # the gateway's subnet
        assert await source_of(kernel, "10.0.0.9") == "10.0.0.2"  # the destination's
        assert await source_of(kernel, "203.0.113.9") == "10.0.0.2"
        assert await source_of(kernel, "203.0.114.9") == "198.18.0.2"  # preferred
        assert await source_of(kernel, "203.0.115.9") == "198.18.0.2"  # by a rule
        assert await source_of(kernel, "198.51.100.7", device="eth0") == "198.18.0.2"  # by a rule on the device
        assert await source_of(kernel, "2001:db8:7::7") == "2001:db8::2"
        assert await source_of(kernel, "2001:db8:9::7") == "2001:db8:1::2"
        assert await source_of(kernel, "192.0.2.2") == "192.0.2.2"  # an address of its own
        assert await source_of(kernel, f"fe80::9%{wlan0.name}") == f"fe80::ff:fe00:{wlan0.ifindex}"
        wlan0.set_down()
        with pytest.raises(OSError, match="no route"):
            await source_of(kernel, "198.51.100.7")


async def test_of_a_multipath_route_the_first_living_way_is_taken() -> None:
    kernel, wlan0 = connected()
    eth0 = kernel.add_link("eth0")
    eth0.add_address("198.18.0.2/24")
    kernel.replace_route("default", nexthops=["192.0.2.1", ("198.18.0.1", eth0)])
    async with kernel:
        assert await source_of(kernel, "198.51.100.7") == "192.0.2.2"
        wlan0.set_down()
        assert await source_of(kernel, "198.51.100.7") == "198.18.0.2"


async def test_nobody_answers_at_a_silent_address_or_without_carrier(autojump_clock: MockClock) -> None:
    kernel, wlan0 = connected()
    kernel.listen(PEER, 80, echo)
    kernel.silence(PEER)
    for _ in range(2):
        began = trio.current_time()
        with pytest.raises(TimeoutError):
            await kernel.connect_tcp(PEER, 80)
        assert trio.current_time() - began == 127
        kernel.listen(PEER, 80, echo)  # speaks again, but the cable is out
        wlan0.set_carrier(False)
    wlan0.set_carrier(True)
    async with kernel:
        await (await kernel.connect_tcp(PEER, 80)).aclose()


async def test_peers_need_the_nursery_of_async_with() -> None:
    kernel, _ = connected()
    kernel.listen(PEER, 80, echo)
    with pytest.raises(RuntimeError, match="async with"):
        await kernel.connect_tcp(PEER, 80)
    async with kernel:
        with pytest.raises(RuntimeError, match="only once"):
            await kernel.__aenter__()
    async with kernel:  # and again, one after the other
        pass


async def test_leaving_ends_the_peers_and_closes_their_streams() -> None:
    kernel, _ = connected()
    async with kernel:
        kernel.listen(PEER, 80, echo)
        stream = await kernel.connect_tcp(PEER, 80)
        await wait_all_tasks_blocked()
    assert await stream.receive_some() == b""


async def test_a_peer_whose_client_went_ends_quietly() -> None:
    kernel, _ = connected()
    async with kernel:
        kernel.listen(PEER, 80, echo)
        stream = await kernel.connect_tcp(PEER, 80)
        await wait_all_tasks_blocked()
        stream.abort()
        await wait_all_tasks_blocked()


async def test_a_peer_that_fails_otherwise_ends_the_test() -> None:
    async def broken(stream: FakeStream) -> None:
        raise LookupError("a bug in the test's peer")

    kernel, _ = connected()
    kernel.listen(PEER, 80, broken)
    with pytest.raises(ExceptionGroup) as caught:
        async with kernel:
            await kernel.connect_tcp(PEER, 80)
            await trio.sleep_forever()
    assert caught.group_contains(LookupError, depth=1)


async def test_the_bodys_error_leaves_as_it_is() -> None:
    error = ValueError("the body's own")
    kernel, _ = connected()
    kernel.listen(PEER, 80, echo)
    with pytest.raises(ValueError, match="own") as caught:
        async with kernel:
            await kernel.connect_tcp(PEER, 80)
            raise error
    assert caught.value is error


async def test_the_bodys_error_and_a_peers_leave_together() -> None:
    async def sore(stream: FakeStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while it was ended")

    kernel, _ = connected()
    kernel.listen(PEER, 80, sore)
    with pytest.raises(ExceptionGroup) as caught:
        async with kernel:
            await kernel.connect_tcp(PEER, 80)
            await wait_all_tasks_blocked()
            raise ValueError("the body's own")
    assert caught.group_contains(ValueError, depth=1)
    assert caught.group_contains(LookupError, depth=1)


async def test_an_outer_cancellation_passes_through() -> None:
    kernel, _ = connected()
    kernel.listen(PEER, 80, echo)
    with trio.move_on_after(0.01) as scope:
        async with kernel:
            await kernel.connect_tcp(PEER, 80)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_bodys_error_is_not_lost_in_an_outer_cancellation() -> None:
    kernel, _ = connected()
    kernel.listen(PEER, 80, echo)
    with trio.move_on_after(0.01), pytest.raises(ValueError, match="own"):
        async with kernel:
            await kernel.connect_tcp(PEER, 80)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("the body's own")


async def test_listening_sockets_are_refused() -> None:
    with assert_checkpoints(), pytest.raises(OSError, match="lab"):
        await FakeKernel().listen_tcp(80)


def test_what_a_kernel_refuses_is_refused() -> None:
    kernel, wlan0 = connected()
    with pytest.raises(FileExistsError):
        kernel.add_link("wlan0")
    with pytest.raises(FileExistsError):
        wlan0.add_address("192.0.2.2/24")
    with pytest.raises(FileExistsError):
        kernel.add_route("default", via="192.0.2.9")
    with pytest.raises(FileExistsError):
        kernel.add_route("default", via="2001:db8::9")
    with pytest.raises(ProcessLookupError):
        kernel.delete_route("203.0.113.0/24")
    with pytest.raises(ProcessLookupError):
        kernel.delete_route("default", via="192.0.2.9")
    with pytest.raises(OSError, match="no link leads"):
        kernel.add_route("203.0.113.0/24", via="203.0.114.1")
    with pytest.raises(OSError, match="gateway or a device"):
        kernel.add_route("203.0.113.0/24")
    with pytest.raises(ValueError, match="host bits"):
        kernel.add_route("203.0.113.1/24", via="192.0.2.1")
    with pytest.raises(ValueError, match="prefix length"):
        wlan0.add_address("192.0.2.3")
    with pytest.raises(OSError, match="not on wlan0"):
        wlan0.delete_address("192.0.2.3/24")
    with pytest.raises(ValueError, match="no name"):
        kernel.add_link("a name that is far too long")
    rule = kernel.add_rule(source="192.0.2.0/24", table=100, priority=10)
    with pytest.raises(FileExistsError):
        kernel.add_rule(source="192.0.2.0/24", table=100, priority=10)
    kernel.delete_rule(rule)
    with pytest.raises(FileNotFoundError):
        kernel.delete_rule(rule)
    with pytest.raises(ValueError, match="one family"):
        kernel.add_rule(source="192.0.2.0/24", destination="2001:db8::/32")
    wlan0.set_down()
    with pytest.raises(OSError, match="wlan0") as caught:
        kernel.add_route("203.0.113.0/24", via="192.0.2.1", device=wlan0)
    assert caught.value.errno == errno.ENETDOWN
    with pytest.raises(OSError, match="IPv6 does not pass"):
        wlan0.add_address("2001:db8::2/64")
    wlan0.delete()
    with pytest.raises(OSError, match="wlan0"):
        wlan0.add_address("192.0.2.2/24")


def test_a_rule_without_a_priority_comes_just_before_the_second() -> None:
    kernel = FakeKernel()
    assert kernel.add_rule(source="192.0.2.0/24", table=100).priority == 32765
    assert kernel.add_rule(source="198.51.100.0/24", table=100).priority == 32764
    assert kernel.add_rule(family=AF_INET6, mark=7, table=100).mask == 0xFFFFFFFF


def test_what_is_done_twice_is_done_once() -> None:
    kernel, wlan0 = connected()
    wlan0.set_up()
    wlan0.set_carrier(True)
    wlan0.set_down()
    wlan0.set_down()
    assert not wlan0.up
    assert wlan0.carrier
    assert repr(wlan0) == f"<FakeLink wlan0 ({wlan0.ifindex})>"
    kernel.add_link("eth0", up=False, carrier=False)
