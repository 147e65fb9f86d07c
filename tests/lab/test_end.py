"""What is left of a lab when it ends, however it ends: nothing."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.lab.waiting import until
from trio_routes import testing
from trio_routes.testing._namespaces import Namespace

pytestmark = pytest.mark.netns


def descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in os.scandir("/proc/self/fd"):
        try:
            found[entry.name] = os.readlink(entry.path)
        except FileNotFoundError:  # the directory's own descriptor
            continue
    return found


class Watch:
    """Watches a namespace from another lab: a veth end placed in it takes its other end along when it is destroyed.

    Exact, and needs no rights over the machine, unlike counting in /proc/slabinfo.
    """

    def __init__(self, network: testing.Network) -> None:
        self._network = network
        self._ports: list[int] = []

    def add(self, host: testing.Host) -> None:
        self.add_foreign(f"/proc/self/fd/{host.netns}")

    def add_foreign(self, path: str) -> None:
        namespace = Namespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._ports.append(self._network.wires.new_cable(self._network, f"watch{len(self._ports)}", namespace))
        namespace.close()

    async def wait_until_destroyed(self) -> None:
        await until(lambda: not set(self._ports) & set(self._indices()), seconds=10)

    def _indices(self) -> list[int]:
        with self._network.wires.namespace.entered():
            return [index for index, _name in socket.if_nameindex()]


@asynccontextmanager
async def watching() -> AsyncGenerator[Watch]:
    async with testing.Lab() as lab:
        yield Watch(lab.network("watch"))


async def test_a_watched_namespace_is_seen_to_live_and_to_die() -> None:
    async with watching() as watch:
        async with testing.Lab() as lab:
            watch.add(lab.host("a"))
            with trio.move_on_after(0.2) as scope:
                await watch.wait_until_destroyed()
            assert scope.cancelled_caught
        await watch.wait_until_destroyed()


async def test_nothing_is_left_after_a_normal_end() -> None:
    async with watching() as watch:
        async with testing.Lab() as lab:
            scene = lab.two_uplinks()
            watch.add(scene.device)
            watch.add(scene.wifi_router)
            with scene.device.inside():
                await trio.to_thread.run_sync(os.getpid)
        await watch.wait_until_destroyed()


async def test_an_exception_leaves_as_it_is_and_nothing_stays() -> None:
    async with watching() as watch:
        with pytest.raises(KeyError):  # the block as a whole is the subject
            async with testing.Lab() as lab:
                host = lab.host("a")
                watch.add(host)
                host.start(["sleep", "1000"], stdout=subprocess.PIPE)
                raise KeyError
        await watch.wait_until_destroyed()


async def test_a_cancelled_lab_ends_its_processes_and_namespaces() -> None:
    async with watching() as watch:
        processes: list[testing.LabProcess] = []
        with trio.move_on_after(0.05) as scope:
            async with testing.Lab() as lab:
                host = lab.host("a")
                watch.add(host)
                processes.append(host.start(["sleep", "1000"], stdout=subprocess.PIPE))
                with host.inside():
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert [process.returncode for process in processes] == [-signal.SIGKILL]
        await watch.wait_until_destroyed()


async def test_fifty_labs_leave_no_descriptor_and_no_thread() -> None:
    async def one_lab() -> None:
        async with testing.Lab() as lab:
            a, b = lab.host("a"), lab.host("b")
            wifi = lab.network("wifi")
            a.plug(wifi, name="wlan0", addresses=["192.0.2.1/24"])
            b.plug(wifi, name="wlan0", addresses=["192.0.2.2/24"]).delete()
            with a.inside():
                await trio.lowlevel.checkpoint()

    await one_lab()
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    for _ in range(50):
        await one_lab()
    # Fewer is well: what an earlier test of this process has left behind may have been closed since.
    assert len(descriptors()) <= len(before), set(descriptors().items()) - set(before.items())
    assert threading.active_count() <= threads


async def test_nat_and_processes_leave_no_descriptor() -> None:
    async def one_lab() -> None:
        async with testing.Lab() as lab:
            host = lab.host("a")
            host.masquerade(host.plug(lab.network("wifi"), name="wlan0"))
            host.start(["sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            await host.run(["true"])

    await one_lab()
    gc.collect()
    before = descriptors()
    for _ in range(3):
        await one_lab()
    assert len(descriptors()) == len(before), set(descriptors().items()) - set(before.items())


async def test_an_orphaned_connection_does_not_keep_its_namespace() -> None:
    # Data and FIN that cannot leave: the kernel would go on trying for half a minute (tcp_orphan_retries).
    # Takes 0.6 s, which is what one retry takes.
    async with watching() as watch:
        async with testing.Lab() as lab:
            scene = lab.two_uplinks(nat=False)
            watch.add(scene.device)
            (listener,) = scene.server.listen(80, scene.server_addresses[4])
            stream = await scene.device.open_tcp_stream(scene.server_addresses[4], 80)
            accepted = await listener.accept()
            scene.device.delete_route("default", via=scene.wifi_gateways[4])
            await stream.send_all(b"x")
            for end in (stream, accepted, listener):
                await end.aclose()
        await watch.wait_until_destroyed()


async def test_a_lab_whose_process_was_killed_leaves_no_process_and_no_namespace() -> None:
    # The victim is a whole program with a lab. Its host gets a veth end from us, by which we see its namespace die; its
    # daemon and the daemon's child, in a session of its own, hold the victim's stdout until the last of them is dead.
    program = """
import os, sys, trio
from trio_routes import testing
async def main():
    async with testing.Lab() as lab:
        host = lab.host("a")
        host.start(["sh", "-c", "setsid sleep 1000 & wait"])
        print(host.netns, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    async with watching() as watch:
        victim = await trio.lowlevel.open_process(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment()
        )
        assert victim.stdout is not None
        async with victim.stdout:
            with trio.fail_after(20):  # the program has to import everything
                said = b""
                while not said.endswith(b"\n"):
                    said += await victim.stdout.receive_some()
            watch.add_foreign(f"/proc/{victim.pid}/fd/{int(said)}")
            victim.kill()
            with trio.fail_after(5):
                assert await victim.stdout.receive_some() == b""
                await victim.wait()
        await watch.wait_until_destroyed()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


async def test_use_after_the_end_says_so() -> None:
    lab = testing.Lab()
    with pytest.raises(RuntimeError, match="async with"):
        lab.host("a")
    async with lab:
        host, network = lab.host("a"), lab.network("wifi")
        link = host.plug(network, name="wlan0", addresses=["192.0.2.1/24"])
    assert repr(host) == "<Host a (closed)>"
    for use in (
        lambda: lab.host("b"),
        lambda: lab.network("lte"),
        lab.two_uplinks,
        lambda: host.netns,
        host.entered,
        host.inside,
        host.forward,
        host.socket,
        lambda: host.listen(80),
        lambda: host.start(["true"]),
        lambda: host.plug(network, name="eth0"),
        lambda: host.add_route("default", via="192.0.2.9"),
        link.up,
        lambda: link.carrier(on=False),
    ):
        with pytest.raises(trio.ClosedResourceError, match="closed"):
            use()
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await host.run(["true"])
    with pytest.raises(RuntimeError, match="used once"):
        async with lab:
            pass


async def test_a_closed_labs_network_takes_no_more_links() -> None:
    async with testing.Lab() as lab:
        network = lab.network("wifi")
    async with testing.Lab() as other:
        host = other.host("a")
        with pytest.raises(trio.ClosedResourceError, match="closed"):
            host.plug(network, name="wlan0")
        assert host.links == {}
