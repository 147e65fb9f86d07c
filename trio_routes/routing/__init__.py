"""The routing cache: a live copy of the kernel's tables, rules, links and addresses, and lookups in it."""

from ._cache import Cache as Cache
from ._changes import (
    FOUND_BY_DUMP as FOUND_BY_DUMP,
    AddressChange as AddressChange,
    ChangeBatch as ChangeBatch,
    GatewayChange as GatewayChange,
    LinkChange as LinkChange,
    NeighbourChange as NeighbourChange,
    RouteChange as RouteChange,
    RuleChange as RuleChange,
    portions as portions,
)
from ._differences import Difference as Difference
from ._explain import Explanation as Explanation, Step as Step, Why as Why
from ._lookup import explain as explain, resolve as resolve
from ._overlay import Overlay as Overlay
from ._query import LookupOptions as LookupOptions, Query as Query, check_numbers as check_numbers
from ._staging import (
    EVERYTHING as EVERYTHING,
    NO_DOUBTS as NO_DOUBTS,
    Doubts as Doubts,
    Part as Part,
    Staging as Staging,
)
from ._tables import Home as Home
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
