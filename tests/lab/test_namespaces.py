"""Entering namespaces, and keeping tasks and worker threads where they belong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.lab.waiting import until
from trio_routes import testing
from trio_routes.testing._namespaces import Namespace


def here() -> int:
    """Return the inode of the calling thread's network namespace, which tells namespaces apart."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def inode_of(host: testing.Host) -> int:
    return os.fstat(host.netns).st_ino


@pytest.mark.netns
def test_a_new_namespace_is_another_one_and_leaves_the_thread_where_it_was() -> None:
    before = here()
    namespace = Namespace.new()
    assert here() == before
    with namespace.entered():
        assert here() != before
        assert os.fstat(namespace.fileno()).st_ino == here()
    assert here() == before
    namespace.close()
    namespace.close()
    with pytest.raises(ValueError, match="closed"):
        namespace.fileno()


@pytest.mark.netns
def test_an_exception_in_an_entered_block_passes_and_the_thread_is_back() -> None:
    before = here()
    namespace = Namespace.new()
    with pytest.raises(KeyError), namespace.entered():
        raise KeyError
    assert here() == before
    namespace.close()


@pytest.mark.netns
def test_entering_moves_no_other_thread() -> None:
    namespace = Namespace.new()
    seen: list[int] = []
    go, done = threading.Event(), threading.Event()

    def look() -> None:
        go.wait()
        seen.append(here())
        done.set()

    other = threading.Thread(target=look)
    other.start()
    with namespace.entered():
        go.set()
        done.wait()
    other.join()
    assert seen == [here()]
    namespace.close()


async def test_entered_blocks_of_two_hosts_nest(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    home = here()
    with a.entered():
        with b.entered():
            assert here() == inode_of(b)
        assert here() == inode_of(a)
    assert here() == home


async def test_a_task_and_its_children_are_inside_and_others_are_not(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    home = here()
    seen: dict[str, set[int]] = {"a": set(), "b": set(), "child of a": set(), "home": set()}

    async def look(name: str) -> None:
        for _ in range(5):
            seen[name].add(here())
            await trio.lowlevel.checkpoint()

    async def look_inside(host: testing.Host) -> None:
        with host.inside():
            async with trio.open_nursery() as children:
                children.start_soon(look, f"child of {host.name}") if host is a else None
                await look(host.name)
        assert here() == home
        await trio.lowlevel.checkpoint()
        assert here() == home

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_inside, a)
        nursery.start_soon(look_inside, b)
        nursery.start_soon(look, "home")
    assert seen == {"a": {inode_of(a)}, "child of a": {inode_of(a)}, "b": {inode_of(b)}, "home": {home}}


async def test_inside_blocks_nest(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    home = here()
    with a.inside():
        with b.inside():
            await trio.lowlevel.checkpoint()
            assert here() == inode_of(b)
        assert here() == inode_of(a)
        await trio.lowlevel.checkpoint()
        assert here() == inode_of(a)
    assert here() == home


async def test_a_worker_thread_works_where_its_caller_is_and_does_not_stay_there(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    home = here()
    for _ in range(3):
        with a.inside():
            assert await trio.to_thread.run_sync(here) == inode_of(a)
        with b.inside():
            assert await trio.to_thread.run_sync(here) == inode_of(b)
        assert await trio.to_thread.run_sync(here) == home


async def test_many_worker_threads_at_once_are_each_where_their_caller_is(lab: testing.Lab) -> None:
    hosts = [lab.host(name) for name in "abc"]
    wrong: list[str] = []

    async def ask(host: testing.Host) -> None:
        with host.inside():
            seen = {await trio.to_thread.run_sync(here) for _ in range(4)}
        if seen != {inode_of(host)}:
            wrong.append(host.name)

    async with trio.open_nursery() as nursery:
        for host in hosts * 3:
            nursery.start_soon(ask, host)
    assert wrong == []


async def test_trio_run_process_runs_inside(lab: testing.Lab) -> None:
    host = lab.host("a")
    with host.inside():
        finished = await trio.run_process(["readlink", "/proc/self/ns/net"], capture_stdout=True)
    assert finished.stdout.decode().strip() == f"net:[{inode_of(host)}]"


async def test_a_worker_that_was_abandoned_leaves_no_descriptor(lab: testing.Lab) -> None:
    host = lab.host("a")
    go = threading.Event()
    with host.inside():
        await trio.to_thread.run_sync(here)
        before = os.listdir("/proc/self/fd")
        with trio.move_on_after(0.01):
            await trio.to_thread.run_sync(go.wait, abandon_on_cancel=True)
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.to_thread.run_sync(here)
    go.set()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= len(before))  # the worker ends when it gets to it


async def test_to_thread_is_trios_own_again_after_the_last_lab() -> None:
    original = trio.to_thread.run_sync
    first, second = testing.Lab(), testing.Lab()
    if testing.Lab.unavailable():
        pytest.skip("needs the lab")
    async with first:
        async with second:
            assert trio.to_thread.run_sync != original
        assert trio.to_thread.run_sync != original
    assert trio.to_thread.run_sync is original


async def test_to_thread_replaced_by_another_while_a_lab_was_open_stays_replaced(
    lab: testing.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with testing.Lab():
        beneath = trio.to_thread.run_sync
        assert await beneath(here) == here()

    async def theirs(function: Callable[[], int]) -> int:
        return await beneath(function)

    monkeypatch.setattr(trio.to_thread, "run_sync", theirs)
    async with testing.Lab() as other:
        with other.host("a").inside():
            assert await trio.to_thread.run_sync(here) == here()
    assert trio.to_thread.run_sync is theirs
    assert await trio.to_thread.run_sync(here) == here()


async def test_a_replacement_around_ours_that_is_put_back_later_does_no_harm() -> None:
    if testing.Lab.unavailable():
        pytest.skip("needs the lab")
    original = trio.to_thread.run_sync
    async with testing.Lab():
        ours = trio.to_thread.run_sync
    trio.to_thread.run_sync = ours  # as monkeypatch does, undoing what was done while the lab was open
    try:
        async with testing.Lab() as lab:
            with lab.host("a").inside():
                assert await trio.to_thread.run_sync(here) == here()
        assert await trio.to_thread.run_sync(here) == here()
    finally:
        trio.to_thread.run_sync = original


async def test_an_await_inside_entered_is_reported_and_moves_nobody_else(lab: testing.Lab) -> None:
    host = lab.host("a")
    home = here()
    seen: list[int] = []

    async def bystander() -> None:
        seen.append(here())

    async def misuse() -> None:
        with host.entered():
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="use inside"), host.entered():  # the block is the subject
            nursery.start_soon(bystander)
            await trio.testing.wait_all_tasks_blocked()
        assert here() == home
        # The block's own exception has the say, a cancellation above all.
        with pytest.raises(KeyError), host.entered():  # the block is the subject
            await trio.lowlevel.checkpoint()
            raise KeyError
        nursery.start_soon(misuse)
        nursery.cancel_scope.cancel()
    assert seen == [home]
    assert here() == home


async def test_a_task_that_outlives_its_lab_does_not_fall_into_the_real_network() -> None:
    if testing.Lab.unavailable():
        pytest.skip("needs the lab")
    home = here()
    seen: list[int] = []
    closed = trio.Event()

    async def outlive() -> None:
        await closed.wait()
        seen.append(here())

    async with trio.open_nursery() as nursery:
        async with testing.Lab() as lab:
            host = lab.host("a")
            inode = inode_of(host)
            with host.inside():
                nursery.start_soon(outlive)
        closed.set()
    assert seen == [inode]
    assert here() == home


async def test_a_socket_stays_in_the_host_that_made_it(lab: testing.Lab) -> None:
    host = lab.host("a")
    (listener,) = host.listen(0, "127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        async with await host.open_tcp_stream("127.0.0.1", port) as stream:
            assert stream.socket.getpeername()[1] == port
        # At home nobody listens there: it is another loopback.
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", port)
