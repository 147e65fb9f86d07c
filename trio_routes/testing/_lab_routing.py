"""A host's routes and rules, and what makes it a router."""

from __future__ import annotations

from typing import Unpack

from ._lab_links import Link
from ._lab_machine import Machine
from ._lab_routes import Family, RouteOptions, RuleOptions, route_fields, rule_fields
from ._lab_words import Network as Prefix


class RoutingMachine(Machine):
    """A machine with methods for its routing. Each is one request of 0.3 to 0.9 ms, done when it returns."""

    def add_route(self, destination: str | Prefix, **options: Unpack[RouteOptions]) -> None:
        """Add a route.

        Args:
          destination: A prefix, an address, or "default".
          **options: See ``RouteOptions``.

        Raises:
          ValueError: Something does not parse or does not go together.
          KernelRefusedError: EEXIST: it is there; ENETUNREACH, EHOSTUNREACH: the gateway is on no link.
        """
        self._route("add", destination, options)

    def replace_route(self, destination: str | Prefix, **options: Unpack[RouteOptions]) -> None:
        """Put a route in the place of that with the same destination, table and metric, or add it. As ``add_route()``."""
        self._route("replace", destination, options)

    def delete_route(self, destination: str | Prefix, **options: Unpack[RouteOptions]) -> None:
        """Delete the first route that matches all that is given. As ``add_route()``.

        Raises:
          ValueError: As ``add_route()``.
          KernelRefusedError: ESRCH: there is none.
        """
        self._route("del", destination, options)

    def _route(self, command: str, destination: str | Prefix, options: RouteOptions) -> None:
        configurator = self._configurator
        configurator.route(command, route_fields(destination, command != "del", configurator.index_of, **options))

    def add_rule(self, priority: int, **options: Unpack[RuleOptions]) -> None:
        """Add a routing policy rule.

        Args:
          priority: Lower ones come first; local is 0, main 32766, default 32767.
          **options: See ``RuleOptions``.

        Raises:
          ValueError: Something does not parse or does not go together.
          KernelRefusedError: EEXIST: it is there.
        """
        self._configurator.rule("add", rule_fields(priority, **options))

    def delete_rule(self, priority: int, **options: Unpack[RuleOptions]) -> None:
        """Delete a rule, given as it was added.

        Raises:
          ValueError: As ``add_rule()``.
          KernelRefusedError: ENOENT: there is none.
        """
        self._configurator.rule("del", rule_fields(priority, **options))

    def forward(self) -> None:
        """Make this host a router, of both families."""
        self._set_boot_sysctl("net.ipv4.ip_forward", 1)
        self._set_boot_sysctl("net.ipv6.conf.all.forwarding", 1)

    def masquerade(self, link: Link) -> None:
        """Translate the source of all that is forwarded out of ``link`` to the link's own address, in both families.

        Raises:
          KernelRefusedError: The kernel has no nftables with NAT.
        """
        self._configurator.masquerade(link.ifindex)

    def refuse_foreign_sources(self, link: Link) -> None:
        """Drop what arrives by ``link`` to be forwarded with a source outside the link's prefixes, in both families.

        As a provider's router does (BCP 38). Without it, or NAT, a connection survives when its default route moves
        to another uplink: its old source is simply routed. Covers IPv6 too, for which there is no rp_filter.
        """
        for interface in link.addresses:
            self.add_rule(10, incoming=link, source=interface.network)
        families: tuple[Family, ...] = (4, 6)
        for family in families:
            self.add_rule(11, incoming=link, action="blackhole", family=family)
