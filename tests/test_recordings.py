"""Recordings: what is recorded, that a replay gives a pt the same, and the corpus of real networks."""

from __future__ import annotations

import errno
import gzip
import json
import os
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.recordings._file import write
from tests.recordings.facts import event_lines, our_tables, their_tables
from trio_routes import GatewayChanged, Resynced, RouteAdded, RouteLostError, RouteRemoved, Verdict, open_pt, testing
from trio_routes.connections import Flow
from trio_routes.netlink import RTNLGRP_LINK, Channel, MessageType, build_message, dump_links, iter_messages
from trio_routes.testing._recording_format import MAGIC, FrameKind

CORPUS = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in CORPUS.glob("*.trec"))

each_recording = pytest.mark.parametrize("name", NAMES)


# ---- recording -------------------------------------------------------------------------------------


async def test_what_one_pt_published_another_publishes_at_the_same_times(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "day.trec"
    begun = time.perf_counter()
    with testing.recording(testing.FakeKernel(), path) as kernel:
        fake = cast(testing.FakeKernel, kernel._kernel)
        wlan0 = fake.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        opened = trio.current_time()
        async with open_pt(kernel=kernel) as pt:
            with pt.subscribe() as live:
                await trio.sleep(1)
                for _ in range(3):
                    fake.add_route("default", via="192.0.2.1")
                    await trio.sleep(1800)
                    fake.delete_route("default", via="192.0.2.1")
                    await trio.sleep(1800.25)
                recorded = [await live.receive() for _ in range(3 * 4)]
            assert pt.statistics().audits > 100
    replayed_from = trio.current_time()
    played = await testing.replay(path)
    assert [(type(e), round(e.time - replayed_from, 5)) for e in played.events] == [
        (type(e), round(e.time - opened, 5)) for e in recorded
    ]
    assert event_lines(played.events, played.routes) == event_lines(recorded, pt.routes)
    assert our_tables(played.routes) == our_tables(pt.routes)
    assert played.statistics.audit_differences == 0
    assert trio.current_time() - replayed_from == pytest.approx(1 + 3 * 3600.25, abs=0.01)
    assert time.perf_counter() - begun < 60  # of the six hours that both stand for


async def test_losses_truncation_and_forgery_are_played_as_they_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "losses.trec"
    fake = testing.FakeKernel()
    wlan0 = fake.add_link("wlan0")
    wlan0.add_address("192.0.2.2/24")
    with testing.recording(fake, path) as kernel:
        async with open_pt(kernel=kernel) as pt:
            with pt.subscribe() as live:
                await trio.sleep(5)
                fake.overflow()
                fake.add_route("default", via="192.0.2.1")  # lost
                await trio.sleep(5)
                fake.send_raw(build_message(MessageType.RTM_NEWROUTE, 0, 0, b""), sender=77)
                await trio.sleep(5)
                fake.add_route("198.51.100.0/24", via="192.0.2.9")
                fake.send_raw(build_message(MessageType.RTM_NEWROUTE, 0, 0, b""), truncated=True)
                await trio.sleep(5)
                recorded = [await live.receive() for _ in range(5)]
            statistics = pt.statistics()
    assert (statistics.overruns, statistics.forged, statistics.truncated, statistics.resyncs) == (1, 1, 1, 2)
    played = await testing.replay(path)
    assert event_lines(played.events, played.routes) == event_lines(recorded, pt.routes)
    kinds = [RouteAdded, GatewayChanged, Resynced, RouteAdded, Resynced]
    assert [type(event) for event in played.events] == kinds
    again = played.statistics
    assert (again.overruns, again.forged, again.truncated, again.resyncs) == (1, 1, 1, 2)
    assert our_tables(played.routes) == our_tables(pt.routes)


async def test_a_recording_ends_with_each_dump_that_was_asked_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "last.trec"
    fake = testing.FakeKernel()
    with testing.recording(fake, path) as kernel:
        async with open_pt(kernel=kernel):
            await trio.sleep(1)
    sent = [frame.data for frame in testing.read_recording(path).frames if frame.kind is FrameKind.SENT]
    headers = [next(iter_messages(data))[0] for data in sent]
    asked = [(header.type, data[16:17]) for header, data in zip(headers, sent, strict=True)]
    half = len(asked) // 2
    assert half >= 8
    assert asked[:half] == asked[half:]
    assert len({header.sequence for header in headers}) == len(headers)


async def test_the_last_dumps_are_taken_again_when_something_changed_under_them(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "changing.trec"
    fake = testing.FakeKernel()
    with testing.recording(fake, path) as kernel:
        sock = kernel.open_netlink()
        sock.join(RTNLGRP_LINK)
        channel = Channel(sock)
        channel.send(dump_links())
        assert len(channel.receive().datagrams) == 2
        send = sock._inner.send

        def send_late(data: bytes) -> None:
            if not kernel.notifications:
                fake.add_link("late0")
            send(data)

        monkeypatch.setattr(sock._inner, "send", send_late)
        channel.close()
    frames = testing.read_recording(path).frames
    assert sum(frame.kind is FrameKind.SENT for frame in frames) == 3
    assert b"late0" in b"".join(frame.data for frame in frames[-4:])
    data = path.read_bytes()
    assert b"changing" not in data  # gzip's header would hold the file's name,
    assert data[len(MAGIC) + 4 : len(MAGIC) + 8] == bytes(4)  # and the time


async def test_a_block_that_ends_by_an_error_leaves_a_complete_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "error.trec"
    with pytest.raises(KeyError), testing.recording(testing.FakeKernel(), path) as kernel:
        async with open_pt(kernel=kernel):
            raise KeyError
    assert (await testing.replay(path)).events == ()


async def test_no_socket_leaves_no_file_and_a_second_one_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "none.trec"
    with testing.recording(testing.FakeKernel(netlink_error=errno.EPERM), path) as kernel:
        async with open_pt(kernel=kernel) as pt:
            assert not pt.monitoring
        assert path.exists()
    assert not path.exists()
    with testing.recording(testing.FakeKernel(), path) as kernel:
        kernel.open_netlink()  # and never closed
        with pytest.raises(RuntimeError, match="opened already"):
            kernel.open_netlink()
    assert testing.read_recording(path).frames == ()


def test_a_file_that_is_there_is_overwritten_only_if_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "there.trec", b"precious")
    with pytest.raises(FileExistsError), testing.recording(testing.FakeKernel(), path):
        pytest.fail("the block must not begin")
    assert path.read_bytes() == b"precious"
    # What was there is not removed, even where nothing was recorded into it: it may be no file at all.
    with testing.recording(testing.FakeKernel(), path, overwrite=True):
        pass
    assert path.exists()


async def test_everything_but_netlink_goes_to_the_kernel_behind(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with testing.FakeKernel() as fake:
        fake.add_link("wlan0").add_address("192.0.2.2/24")

        async def greet(stream: testing.FakeStream) -> None:
            await stream.send_all(b"hello")

        fake.listen("192.0.2.7", 80, greet, name="peer.example")
        with testing.recording(fake, tmp_path / "through.trec") as kernel:
            assert await kernel.resolve("peer.example", 80) == [ip_address("192.0.2.7")]
            stream = await kernel.connect_tcp(ip_address("192.0.2.7"), 80)
            assert await stream.receive_some() == b"hello"
            with pytest.raises(OSError, match="listening"):
                await kernel.listen_tcp(80)


# ---- the corpus ------------------------------------------------------------------------------------

# Differences that the audit after a recording finds: what the kernel did without a word. The hop limit of each default
# route by router advertisement is set after the route was announced.
SILENT = {"advertisements": 1}


def expected(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((CORPUS / f"{name}.json").read_text()))


def test_there_is_a_recording_of_each_scene() -> None:
    scenes = ["advertisements", "carrier", "containers", "dhclient", "dhcpcd", "overrun", "vpn"]
    assert scenes == NAMES == sorted(path.stem for path in CORPUS.glob("*.json"))


@each_recording
async def test_a_recording_leads_to_what_was_published_live_and_to_the_tables_of_ip(
    name: str, autojump_clock: MockClock
) -> None:
    kernel = testing.ReplayKernel(CORPUS / f"{name}.trec")
    wanted = expected(name)
    begun = time.perf_counter()
    played = await testing.replay(kernel.recording)
    assert event_lines(played.events, played.routes) == wanted["events"]
    printed = {table: said for table, said in wanted.items() if table not in ("story", "events")}
    assert our_tables(played.routes) == their_tables(printed)
    assert trio.current_time() >= kernel.recording.microseconds / 1e6
    assert time.perf_counter() - begun < 5  # of up to a minute that it stands for
    assert (played.statistics.resyncs, played.statistics.undecodable) == (int(name == "overrun"), 0)


@each_recording
async def test_the_kernel_s_own_last_dump_agrees_with_what_the_notifications_led_to(
    name: str, autojump_clock: MockClock
) -> None:
    kernel = testing.ReplayKernel(CORPUS / f"{name}.trec")
    async with open_pt(kernel=kernel) as pt:
        await kernel.wait_played()
        audits = pt.statistics().audits
        await trio.sleep(61)
        statistics = pt.statistics()
    assert statistics.audits > audits
    assert statistics.audit_differences == SILENT.get(name, 0)


@each_recording
def test_a_recording_is_small_and_has_nothing_of_the_machine_in_it(name: str) -> None:
    path = CORPUS / f"{name}.trec"
    data = path.read_bytes()
    assert len(data) < 100 * 1024
    everything = gzip.decompress(data[len(MAGIC) :]) + (CORPUS / f"{name}.json").read_bytes()
    for word in (b"/tmp", b"/home", b"/root", b"/work", b"eth0@", os.fsencode(Path(__file__).parents[2])):
        assert word not in everything


DEVICE = ip_address("192.0.2.53")


async def test_a_connection_outlives_the_renewals_of_a_lease_and_not_its_loss(autojump_clock: MockClock) -> None:
    kernel = testing.ReplayKernel(CORPUS / "dhclient.trec")
    stream, _ = trio.testing.memory_stream_pair()
    async with open_pt(kernel=kernel) as pt:
        with pt.subscribe(RouteRemoved, GatewayChanged) as events:
            await events.receive()  # the first lease is complete
            flow = Flow(peer=ip_address("198.51.100.7"), peer_port=443, local=DEVICE, local_port=40000)
            begun = trio.current_time()
            with pytest.raises(RouteLostError) as lost, pt.guard(stream, flow=flow):
                await trio.sleep_forever()
            removed = await events.receive()
    assert lost.value.verdict is Verdict.SOURCE_GONE
    assert removed.time - begun > 8  # two renewals, at 3 and at 7 s or so
    assert trio.current_time() == pytest.approx(removed.time + 1, abs=0.1)
