"""`pt.portal`: what applications see of the detector."""

from __future__ import annotations

import attrs

from ._detector import Detector
from ._rules import PortalState


@attrs.frozen(eq=False)
class PortalView:
    """What is behind the gateway: the Internet, a captive portal, or nothing.

    Always there. Nothing is sent unless `open_pt(portal=PortalConfig(...))` turned detection on or `check` is called.
    """

    _detector: Detector

    @property
    def state(self) -> PortalState:
        """The state of now; UNKNOWN until asked, and from a change of the gateway until that was looked into."""
        return self._detector.state

    async def check(self) -> PortalState:
        """Find out now and return the state. A checkpoint; joins a run that is under way, and takes at most 10 s.

        With detection off it asks this once, and the default endpoint.

        Raises:
          trio.ClosedResourceError: The pt has ended.
        """
        return await self._detector.check()

    async def wait_online(self) -> None:
        """Return once the Internet is known to be there; at once where it is. A checkpoint.

        Raises:
          RuntimeError: Detection is off.
          trio.ClosedResourceError: The pt has ended.
        """
        await self._detector.wait_online()
