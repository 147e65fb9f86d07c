"""httpcore over guarded streams: a network backend, and a pool that lends no connection whose path is in doubt."""

from ._extra import needs

with needs("httpcore", "httpx"):
    from ._httpcore import (
        GuardedBackend as GuardedBackend,
        GuardedConnectionPool as GuardedConnectionPool,
        NoRouteConnectError as NoRouteConnectError,
        RouteLostConnectError as RouteLostConnectError,
        RouteLostReadError as RouteLostReadError,
        RouteLostWriteError as RouteLostWriteError,
    )
