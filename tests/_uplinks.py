"""The two uplinks of `Lab.two_uplinks`, in one address family: who is where, seen from the device."""

from __future__ import annotations

from typing import Literal, TypeAlias

from trio_routes.testing import Host, TwoUplinks

Family: TypeAlias = Literal[4, 6]


class Uplinks:
    """Names for what a test of one family speaks of all the time.

    Attributes:
      net: The network.
      family: 4 or 6.
    """

    net: TwoUplinks
    family: Family

    @property
    def device(self) -> Host:
        """The host that the pt lives in."""
        return self.net.device

    @property
    def server(self) -> str:
        """The server's address behind both uplinks."""
        return self.net.server_addresses[self.family]

    @property
    def wifi(self) -> str:
        """The gateway of the default route."""
        return self.net.wifi_gateways[self.family]

    @property
    def lte(self) -> str:
        """The other uplink's gateway."""
        return self.net.lte_gateways[self.family]

    @property
    def spare(self) -> str:
        """The other gateway on the Wi-Fi."""
        return self.net.spare_gateways[self.family]
