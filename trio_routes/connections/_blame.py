"""Whose error was it: telling a connection's own errors from everything else in what a body raised.

Errors reach a guard, a server or a reconnecting client bare, in groups (nurseries), and as the
`__cause__` of a library's own error (websockets' ConnectionClosedError, httpcore's ReadError).
`__context__` is never looked at: it says what else was going on, not what led to what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeGuard

import trio

from ._flow import layers

IsOwn: TypeAlias = Callable[[BaseException], bool]


def remainder(error: BaseException, is_own: IsOwn) -> BaseException | None:
    """What of an error has to go on its way when one's own errors in it are dealt with.

    Anything else wins and goes on with all that is beside it, as the very same object. But where the rest is
    nothing but Cancelled, only that goes on: an outer scope makes nothing of it, and would raise what came along.

    Args:
      error: A bare error or a group, nested as it may be.
      is_own: Asked about each leaf; never about a group.

    Returns:
      None if all of it is one's own.
    """
    if not _is_group(error):
        return None if is_own(error) else error
    own, rest = error.split(lambda leaf: not _is_group(leaf) and is_own(leaf))
    if rest is None or (own is not None and _is_cancellation(rest)):
        return rest
    return error


def stems_from(error: BaseException, is_own: IsOwn) -> bool:
    """Whether an error is one's own or has one in its `__cause__` chain; of a group, every leaf."""
    link: BaseException | None = error
    seen = set[int]()  # a chain may be a circle: `raise a from b` where b came from a
    while link is not None and id(link) not in seen:
        if _is_group(link):
            return all(stems_from(leaf, is_own) for leaf in link.exceptions)
        if is_own(link):
            return True
        seen.add(id(link))
        link = link.__cause__
    return False


def is_afterword_of_tls(error: BaseException, stream: trio.abc.Stream) -> bool:
    """Whether an error is what a `trio.SSLStream` on top of a stream answers once sending by it has failed.

    It lets the stream's error pass that one time. From then on it raises BrokenResourceError by itself, with neither
    words nor a cause, and never asks the stream again; only the traceback tells whose error that is.
    """
    if type(error) is not trio.BrokenResourceError or error.args or error.__cause__ is not None:
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    speaker: object = None if traceback is None else traceback.tb_frame.f_locals.get("self")
    return isinstance(speaker, trio.SSLStream) and any(layer is stream for layer in layers(speaker))  # pyright: ignore[reportUnknownArgumentType] -- of what streams, nobody asks


def _is_cancellation(error: BaseException) -> bool:
    if _is_group(error):
        return all(_is_cancellation(leaf) for leaf in error.exceptions)
    return isinstance(error, trio.Cancelled)


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    return isinstance(error, BaseExceptionGroup)
