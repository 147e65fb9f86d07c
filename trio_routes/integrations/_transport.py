"""What the transports for httpx and httpx2 do, without either; `_httpx` and `_httpx2` add the names.

Errors on their way up, for a route that is lost while a response is read:

    RouteLostError            the guarded stream
    ..httpcore.ReadError      subclass of both, by the network backend; the pool strips its cause
    ..httpx.ReadError         subclass of both, here; its cause is the one before
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .._errors import RouteLostError

_Error = TypeVar("_Error", bound=Exception)
_Request = TypeVar("_Request")


def told(
    error: _Error, request: _Request, errors: Mapping[type[_Error], Callable[[RouteLostError, _Request], _Error]]
) -> _Error:
    """The error to raise in the place of the library's own: one that tells of the loss, where it was that.

    Args:
      error: The library's.
      request: What was asked.
      errors: What makes the one that tells, by the type of the library's.
    """
    lost = error.__cause__
    make = errors.get(type(error))
    return error if make is None or not isinstance(lost, RouteLostError) else make(lost, request)


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that nothing below has to know of, and that would be ignored.

    Raises:
      TypeError: There is no such option.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"GuardedTransport() has no option {', '.join(unknown)}")
