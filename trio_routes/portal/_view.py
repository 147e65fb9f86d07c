"""`pt.portal`: what applications see of the detector."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ._detector import Detector
from ._rules import PortalState, combine


@attrs.frozen
class LinkPortal:
    """What is behind one link.

    Attributes:
      ifindex: The link.
      name: Its name.
      families: The state by each family, 4 and 6.
    """

    ifindex: int
    name: str
    families: Mapping[int, PortalState]

    @property
    def state(self) -> PortalState:
        """The state of both families together: a portal by either is a portal, the Internet by either is the Internet."""
        return combine(self.families.values(), max(state.generation for state in self.families.values()))


@attrs.frozen(eq=False)
class PortalView:
    """What is behind the default path and each link: the Internet, a captive portal, or nothing. Advice, never a gate.

    Always there. Nothing is sent unless `open_pt(portal=PortalConfig(...))` turned detection on or `check` is called.
    """

    _detector: Detector

    @property
    def state(self) -> PortalState:
        """The state of the default path now; UNKNOWN until asked, and from a change until that was looked into."""
        return self._detector.state

    @property
    def links(self) -> Mapping[int, LinkPortal]:
        """The links by ifindex, as they are known now.

        Without loopback, links that belong to a bridge or bond, and virtual ones without an address of their own; tunnels
        are there and are not probed. Empty with `PortalConfig(per_link=False)` and where nothing is monitored.
        """
        links: dict[int, LinkPortal] = {}
        for (ifindex, family), (name, state) in self._detector.paths().items():
            link = links.get(ifindex, LinkPortal(ifindex, name, {}))
            links[ifindex] = attrs.evolve(link, families={**link.families, family: state})
        return links

    async def check(self, ifindex: int | None = None) -> PortalState:
        """Find out now and return the state. A checkpoint; joins runs that are under way.

        Asking by one path takes at most 13 s. Five questions are asked at once, so many silent links wait for each other.
        With detection off it asks this once, and the default endpoints.

        Args:
          ifindex: The link to ask by; None is all of them.

        Returns:
          The default path's state, or that of the link by both families.

        Raises:
          LookupError: There is no such link, or it is one that is left out of `links`.
          trio.ClosedResourceError: The pt has ended.
        """
        return await self._detector.check(ifindex)

    async def wait_online(self) -> None:
        """Return once the Internet is known to be behind the default path; at once where it is. A checkpoint.

        Raises:
          RuntimeError: Detection is off.
          trio.ClosedResourceError: The pt has ended.
        """
        await self._detector.wait_online()
