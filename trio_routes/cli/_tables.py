"""One reading of this machine's routing tables, for the commands that only ask."""

from __future__ import annotations

import trio

from .._errors import KernelRefusedError
from .._follow import Follower
from ..netlink import Channel, LinuxKernel
from ..routing import Cache
from ._arguments import CommandFailedError
from ._iproute_json import NameOf


async def read_cache() -> Cache:
    """Read the tables of the network namespace that we are in, by the same way as a pt does. A checkpoint.

    Raises:
      CommandFailedError: There is no netlink here, or it is refused.
    """
    try:
        channel = Channel(LinuxKernel().open_netlink())
    except OSError as error:
        raise CommandFailedError(f"cannot ask the kernel for its routes: {error}") from error
    cache = Cache()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(Follower(channel, cache, lambda batch: None).run)
            nursery.cancel_scope.cancel("the tables are read")
    except* (KernelRefusedError, PermissionError) as refusals:
        raise CommandFailedError(f"cannot ask the kernel for its routes: {refusals.exceptions[0]}") from None
    finally:
        channel.close()
    return cache


def names_in(cache: Cache) -> NameOf:
    """Return what names the links of ``cache``; one that is not there is called as ip(8) does, "if7"."""

    def name_of(ifindex: int) -> str:
        link = cache.link(ifindex)
        return f"if{ifindex}" if link is None else link.name

    return name_of
