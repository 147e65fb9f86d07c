"""The routing cache: a live copy of the kernel's tables, rules, links and addresses, and lookups in it."""

from ._cache import (
    FOUND_BY_DUMP as FOUND_BY_DUMP,
    ROUTES_OF as ROUTES_OF,
    RULES_OF as RULES_OF,
    Cache as Cache,
    Part as Part,
    Staging as Staging,
    address_of as address_of,
)
from ._changes import (
    AddressChange as AddressChange,
    ChangeBatch as ChangeBatch,
    GatewayChange as GatewayChange,
    LinkChange as LinkChange,
    NeighbourChange as NeighbourChange,
    RouteChange as RouteChange,
    RuleChange as RuleChange,
)
from ._values import (
    Address as Address,
    IPNetwork as IPNetwork,
    Kind as Kind,
    Link as Link,
    Outcome as Outcome,
    Resolution as Resolution,
    Route as Route,
    Rule as Rule,
)
