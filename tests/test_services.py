"""The block in which a pt's body runs beside its tasks (API rules R42 to R45)."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_routes._services import Services


class Recorder:
    """A service that says what happened to it."""

    def __init__(self, fail: Exception | None = None, fail_at_start: Exception | None = None) -> None:
        self.fail = fail
        self.fail_at_start = fail_at_start
        self.alive = False
        self.fail_now = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        if self.fail_at_start is not None:
            raise self.fail_at_start
        self.alive = True
        task_status.started()
        try:
            await self.fail_now.wait()
            assert self.fail is not None
            raise self.fail
        finally:
            self.alive = False


@asynccontextmanager
async def serving(service: Recorder) -> AsyncGenerator[Services]:
    async with Services() as services:
        await services.start(service.run)
        yield services


async def test_leaving_the_block_ends_the_services() -> None:
    service = Recorder()
    async with serving(service):
        assert service.alive
    assert not service.alive


async def test_the_bodys_exception_leaves_as_the_same_object_with_its_context() -> None:
    """R43."""
    error, cause = ValueError("the body's own"), KeyError("what it came from")
    with pytest.raises(ValueError, match="the body's own") as caught:
        async with serving(Recorder()):
            try:
                raise cause
            except KeyError:
                raise error  # noqa: B904 - the implicit context is what is tested
    assert caught.value is error
    assert error.__context__ is cause


async def test_a_group_of_the_bodys_own_leaves_as_the_same_object() -> None:
    """R43."""
    group = ExceptionGroup("mine", [ValueError("one"), ExceptionGroup("nested", [KeyError("two")])])
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(Recorder()):
            raise group
    assert caught.value is group
    assert [type(error) for error in caught.value.exceptions] == [ValueError, ExceptionGroup]


async def test_a_failing_service_cancels_the_body_and_gives_a_group() -> None:
    """R44."""
    fault = RuntimeError("netlink broke")
    service = Recorder(fail=fault)
    cancelled = False
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(service):
            service.fail_now.set()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled
    assert list(caught.value.exceptions) == [fault]


async def test_a_service_failing_while_the_body_raises_gives_a_group_of_both() -> None:
    """R43."""
    fault, error = RuntimeError("netlink broke"), ValueError("the body's own")
    service = Recorder(fail=fault)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(service):
            service.fail_now.set()
            try:
                await trio.sleep_forever()
            finally:
                raise error
    assert set(caught.value.exceptions) == {fault, error}


async def test_a_failing_start_raises_bare_and_ends_what_was_started() -> None:
    """R44."""
    first, fault = Recorder(), FileNotFoundError("no such namespace")
    with pytest.raises(FileNotFoundError) as caught:
        async with serving(first) as services:
            await services.start(Recorder(fail_at_start=fault).run)
    assert caught.value is fault
    assert not first.alive


async def test_a_start_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """R42: a task that was shielded before it had started would hang here."""

    async def never_started(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        async with Services() as services:
            await services.start(never_started)
    assert scope.cancelled_caught


async def test_services_outlive_the_bodys_finally_blocks_also_when_cancelled_from_outside() -> None:
    """R45."""
    service = Recorder()
    alive_in_cleanup = False
    with trio.CancelScope() as scope:
        async with serving(service):
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    alive_in_cleanup = service.alive
    assert scope.cancelled_caught
    assert alive_in_cleanup
    assert not service.alive


async def test_an_error_of_the_body_is_not_lost_in_an_outer_cancellation() -> None:
    error = ValueError("while cancelled")
    with pytest.raises(ValueError, match="while cancelled") as caught, trio.CancelScope() as scope:
        async with serving(Recorder()):
            scope.cancel()
            raise error
    assert caught.value is error


def test_ctrl_c_is_raised_in_the_body_and_leaves_bare() -> None:
    """R45: an unprotected service that is running at that moment would raise it in a group."""

    async def busy(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def main() -> None:
        async with Services() as services:
            await services.start(busy)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
