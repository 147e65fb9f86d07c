"""Trio's tasks and worker threads in the namespace of the lab's host that they work for.

A namespace is a property of the thread, and all tasks of a run share one thread. So a task carries its host
in a context variable, which its child tasks inherit, and an Instrument moves the thread before each of its
steps and home after it. Price per task step: about 2 µs at home, 6 µs inside a host. Trio's system tasks stay at home.

Worker threads need a cure of their own. They are shared and re-used: one first started from within host B stays
in B and serves everybody later. So while a lab is open, ``trio.to_thread.run_sync`` is replaced by one that takes the
caller's namespace along and takes the worker home afterwards. That covers what looks the function up when called:
``run_process``, ``open_process``, name look-ups, ``to_thread`` itself. ``trio.Path`` binds the original at import;
reading /proc/sys/net by it inside a host reads whatever the worker sees (use ``host.sysctl``).
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, Protocol, TypeVar, cast

import trio

from ._namespaces import Namespace, leave_forgotten_blocks

T = TypeVar("T")
P = ParamSpec("P")

_where: contextvars.ContextVar[Namespace | None] = contextvars.ContextVar("_where", default=None)


class _Follow(trio.abc.Instrument):
    """Keeps the run's thread in the namespace of the task that is running."""

    def __init__(self) -> None:
        self._home = Namespace.of_this_thread()
        self._now = self._home

    def move(self, namespace: Namespace | None) -> None:
        """Move to ``namespace``, or home."""
        wanted = self._home if namespace is None else namespace
        if wanted is not self._now:
            wanted.move_thread()
            self._now = wanted

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.move(task.context.get(_where, None))

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if leave_forgotten_blocks():  # a task was suspended inside entered(): nobody else may run there
            self._now = self._home
            self._home.move_thread()
        self.move(None)

    def after_run(self) -> None:
        self._home.close()


_follow: trio.lowlevel.RunVar[_Follow] = trio.lowlevel.RunVar("_follow")


def follow_tasks() -> _Follow:
    """Have this run's thread follow its tasks from now on, and return the instrument that does it.

    It stays until the run ends: a task that outlives its lab must not fall, in mid-work, into the machine's
    real network.
    """
    try:
        return _follow.get()
    except LookupError:
        instrument = _Follow()
        trio.lowlevel.add_instrument(instrument)
        _follow.set(instrument)
        return instrument


@contextmanager
def inside(namespace: Namespace) -> Generator[None]:
    """Have the current task, and the tasks that it starts meanwhile, in ``namespace``."""
    instrument = follow_tasks()
    before = _where.get()
    # A hold of its own: tasks started in the block may outlive the lab. It closes itself when no task's context has it.
    there = namespace.duplicate()
    token = _where.set(there)
    try:
        instrument.move(there)
        yield
    finally:
        _where.reset(token)
        instrument.move(before)


class _RunSync(Protocol):
    def __call__(
        self,
        sync_fn: Callable[..., T],
        *args: object,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Awaitable[T]: ...


class _Replacement:
    """One replacement of ``trio.to_thread.run_sync``, for a time in which labs are open.

    A new one each time, around whatever it finds: somebody else's replacement may have been put around an old one
    of ours, which then stays where it is and passes everything through.
    """

    def __init__(self) -> None:
        self._home: Namespace | None = Namespace.of_this_thread()
        self._original = cast(_RunSync, trio.to_thread.run_sync)
        self._install(self.run_sync)

    def remove(self) -> None:
        self._home = None  # closed with the last job that still needs it
        if trio.to_thread.run_sync == self.run_sync:
            self._install(self._original)

    def _install(self, run_sync: _RunSync) -> None:
        # setattr, because type checkers rightly forbid to assign to another module's function.
        setattr(trio.to_thread, "run_sync", run_sync)  # noqa: B010

    async def run_sync(
        self,
        sync_fn: Callable[..., T],
        *args: object,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """As ``trio.to_thread.run_sync``, with the worker in the caller's network namespace."""
        home = self._home
        function = sync_fn if home is None else _there(sync_fn, Namespace.of_this_thread(), home)
        return await self._original(
            function, *args, thread_name=thread_name, abandon_on_cancel=abandon_on_cancel, limiter=limiter
        )


class _WorkersFollow:
    """Counts the open labs, of all threads, and keeps the replacement while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labs = 0
        self._replacement: _Replacement | None = None

    def hold(self) -> None:
        with self._lock:
            if self._replacement is None:
                self._replacement = _Replacement()
            self._labs += 1

    def release(self) -> None:
        with self._lock:
            self._labs -= 1
            if self._labs == 0 and self._replacement is not None:
                self._replacement.remove()
                self._replacement = None


def _there(function: Callable[P, T], there: Namespace, home: Namespace) -> Callable[P, T]:
    # Nobody closes ``there``: with abandon_on_cancel the caller may be gone before the worker starts, and a
    # cancelled caller's worker may never start. The last reference does.
    @functools.wraps(function)  # Trio names the thread after it
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        there.move_thread()
        try:
            return function(*args, **kwargs)
        finally:
            home.move_thread()

    return run


workers_follow = _WorkersFollow()
