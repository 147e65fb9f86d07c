"""What is asked of the kernel: the multicast groups to hear of changes, and a dump for each part of its state."""

from __future__ import annotations

from .netlink import (
    AF_INET,
    AF_INET6,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    RTNLGRP_ND_USEROPT,
    RTNLGRP_NEIGH,
    RTNLGRP_NEXTHOP,
    Request,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_netconf,
    dump_nexthops,
    dump_routes,
    dump_rules,
)
from .routing import Part

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
    RTNLGRP_ND_USEROPT,  # of no table: what routers advertise besides, for the portal detection
)
REQUESTS: dict[Part, Request] = {
    Part.LINKS: dump_links(),
    Part.ADDRESSES: dump_addresses(),
    Part.IPV4_SWITCHES: dump_netconf(AF_INET),
    Part.IPV6_SWITCHES: dump_netconf(AF_INET6),
    Part.NEXTHOPS: dump_nexthops(),
    Part.IPV4_RULES: dump_rules(AF_INET),
    Part.IPV6_RULES: dump_rules(AF_INET6),
    Part.NEIGHBOURS: dump_neighbours(),
    Part.IPV4_ROUTES: dump_routes(AF_INET),
    Part.IPV6_ROUTES: dump_routes(AF_INET6),
}
