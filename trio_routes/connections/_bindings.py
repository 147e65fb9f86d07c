"""Which listeners are bound to an address that may go, and whether it is there (rule R37).

The kernel looks at the address when a socket is bound and never again: a listening socket outlives the absence of its
address, together with its backlog, and takes connections as soon as it is back (tried in namespaces, both families).
To close it and bind anew would reset what waits in that backlog, and somebody else could have the port meanwhile. So
all there is to do is to tell. One socket is of no use any more when its address is back: an IPv6 link-local address
is bound together with a link's number (RFC 4007 section 6), and a link that was made anew (a VPN's, a container's, a
driver's that was reset) has its old name and another number. Its listener is told to bind again.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from .._events import Event, ListenerDown, ListenerUp

if TYPE_CHECKING:
    from ..netlink import IPAddress
    from ..routing import Cache

_logger = logging.getLogger(__name__)

# linux/if_addr.h. While duplicate address detection runs, and after it has failed, nobody can bind to an address
# (ipv6_chk_addr) and nothing that comes for it is taken in; an optimistic one is as good as any.
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_OPTIMISTIC: Final = 0x04
_IFA_F_TENTATIVE: Final = 0x40


@attrs.define(eq=False)
class Binding:
    """A listening socket and its address.

    Attributes:
      address: What it is bound to; a link-local one with its link's name as the scope.
      port: Its port.
      ifindex: The link of a link-local address; 0 for all others.
      link: That link's name when it was bound; "" for all others.
      there: Whether connections can come in.
      moved: The address is on another link of that name; the socket has to be bound again.
      accepting: Cancelled when that happens.
    """

    address: IPAddress
    port: int
    ifindex: int = 0
    link: str = ""
    there: bool = True
    moved: bool = False
    accepting: trio.CancelScope | None = None

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


class Bindings:
    """The listeners of one pt that are bound to an address. It keeps none alive.

    Args:
      cache: The routing cache.
      publish: Takes the events; never blocks.
    """

    def __init__(self, cache: Cache, publish: Callable[[Event], None]) -> None:
        self._cache = cache
        self._publish = publish
        self._watched: weakref.WeakValueDictionary[int, Binding] = weakref.WeakValueDictionary()
        self._serial = itertools.count(1)

    def watch(self, sock: trio.socket.SocketType) -> Binding | None:
        """Begin to tell of a listening socket's address, until what is returned is collected or forgotten.

        Returns:
          None for a socket that is bound to every address, or to none: there is nothing that could go.
        """
        if sock.family not in (trio.socket.AF_INET, trio.socket.AF_INET6):
            return None
        name = cast("tuple[str, int] | tuple[str, int, int, int]", sock.getsockname())
        address = ip_address(name[0].partition("%")[0])
        if address.is_unspecified:
            return None
        ifindex = name[3] if len(name) == 4 else 0
        link = self._cache.link(ifindex)
        if ifindex:
            address = IPv6Address(f"{address}%{ifindex if link is None else link.name}")
        binding = Binding(address, name[1], ifindex, "" if link is None else link.name)
        # An address that is not there to begin with (IP_FREEBIND) has not gone; and unknown tables say nothing.
        binding.there = self._cache.resyncing or self._holds(binding, ifindex)
        self._watched[next(self._serial)] = binding
        return binding

    def forget(self, binding: Binding) -> None:
        """Tell nothing more of a socket."""
        for serial, watched in list(self._watched.items()):
            if watched is binding:
                del self._watched[serial]

    def touch(self) -> None:
        """Look at every address after the tables have changed. Not a checkpoint."""
        if not self._watched:
            return  # as in every client, at every change
        for binding in list(self._watched.values()):
            there = self._holds(binding, binding.ifindex)
            if there and not binding.there:
                self.up(binding)
            elif binding.there and not there:
                binding.there = False
                _logger.warning("nobody can connect to %s any more: the address is gone", binding)
                self._publish(
                    ListenerDown(
                        generation=self._cache.generation,
                        time=trio.current_time(),
                        address=binding.address,
                        port=binding.port,
                    )
                )
            elif not there and not binding.moved and any(self._holds(binding, i) for i in self._namesakes(binding)):
                binding.moved = True
                if binding.accepting is not None:
                    binding.accepting.cancel(reason=f"{binding} is on another link of that name now")

    def up(self, binding: Binding) -> None:
        """Tell that connections to an address can come in again."""
        binding.there = True
        _logger.info("connections to %s can come in again", binding)
        self._publish(
            ListenerUp(
                generation=self._cache.generation,
                time=trio.current_time(),
                address=binding.address,
                port=binding.port,
            )
        )

    def _holds(self, binding: Binding, ifindex: int) -> bool:
        """Whether this host has the address, on that link if there is one to look at."""
        bare = IPv6Address(int(binding.address)) if binding.address.version == 6 else binding.address
        found = self._cache.addresses_of(bare)
        if found or ifindex:
            return any(ifindex in (0, held.ifindex) and _is_usable(held.flags) for held in found)
        return self._cache.local_route(bare) is not None  # a whole prefix that is local ("AnyIP")

    def _namesakes(self, binding: Binding) -> list[int]:
        links = self._cache.links.items()
        return [index for index, link in links if link.name == binding.link and index != binding.ifindex]


def _is_usable(flags: int) -> bool:
    if flags & _IFA_F_DADFAILED:
        return False
    return not flags & _IFA_F_TENTATIVE or bool(flags & _IFA_F_OPTIMISTIC)
