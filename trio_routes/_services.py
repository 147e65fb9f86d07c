"""Running a body beside the tasks that serve it, so that each one's errors stay its own.

A plain nursery would wrap the body's exception into a group, and an outer cancellation would
end the services while the body's ``finally`` blocks still need them. So:

* a service is started inside the caller's cancellation, and shielded from it once it has started;
* the body's exception never reaches the nursery: it leaves as the object that it was;
* a service that fails cancels the body, and its error leaves in a group, with the body's if it had one.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

import trio


class Service(Protocol):
    """A task's function that tells when it has started."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[None]:
        """Run until cancelled."""
        ...


class _ShieldOnceStarted(trio.TaskStatus[None]):
    """Passes `started` on, and shields the task from then on.

    ``nursery.start`` of a task that is shielded already could not be cancelled.
    """

    def __init__(self, inner: trio.TaskStatus[None], scope: trio.CancelScope) -> None:
        self._inner = inner
        self._scope = scope

    def started(self, value: None = None) -> None:
        self._scope.shield = True
        self._inner.started(value)


class Services(AbstractAsyncContextManager["Services", bool]):
    """The body's `async with` block; `start` services in it."""

    def __init__(self) -> None:
        self._nursery_manager = trio.open_nursery()
        self._body = trio.CancelScope()
        self._scopes: list[trio.CancelScope] = []
        self._failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        self._body.__enter__()
        return self

    async def start(self, service: Service) -> None:
        """Start a service and wait until it has started. A checkpoint. Its failure to start is raised bare."""
        await self._nursery.start(self._run, service)

    @trio.lowlevel.enable_ki_protection  # Ctrl-C belongs to the body
    async def _run(  # noqa: ASYNC114, ASYNC910 - private; a service is a checkpoint
        self, service: Service, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.CancelScope() as scope:  # noqa: ASYNC912 - likewise
            self._scopes.append(scope)
            try:
                await service(task_status=_ShieldOnceStarted(task_status, scope))
            except Exception as error:
                if not scope.shield:
                    raise
                self._failures.append(error)
                self._body.cancel(reason=f"a task of the pt failed: {error!r}")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> bool:
        """End the services, then raise what is due: nothing, the body's own exception, or a group."""
        swallowed = False
        replaced: BaseException | None = None
        try:
            swallowed = bool(self._body.__exit__(kind, error, traceback))
        except BaseException as left:  # noqa: ASYNC103, BLE001 - a group without its Cancelled; raised below
            replaced = left
        for scope in self._scopes:
            scope.cancel(reason="the pt is closing")
        # The services end at once; an outer cancellation has nothing to hurry here, and must not replace
        # the body's exception by its own.
        self._nursery.cancel_scope.shield = True
        await self._nursery_manager.__aexit__(None, None, None)  # noqa: ASYNC102 - it is shielded, and ends at once
        own = replaced if replaced is not None else None if swallowed else error
        if self._failures:
            errors: list[BaseException] = [*self._failures]
            if own is not None and not isinstance(own, trio.Cancelled):
                errors.append(own)
            raise BaseExceptionGroup("the pt failed", errors)
        if replaced is not None:
            raise replaced
        return swallowed
