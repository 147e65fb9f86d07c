"""httpcore2 over guarded streams: a network backend, and a pool that lends no connection whose path is in doubt."""

from ._extra import needs

with needs("httpcore2", "httpx2"):
    from ._httpcore2 import (
        GuardedBackend as GuardedBackend,
        GuardedConnectionPool as GuardedConnectionPool,
        NoRouteConnectError as NoRouteConnectError,
        RouteLostConnectError as RouteLostConnectError,
        RouteLostReadError as RouteLostReadError,
        RouteLostWriteError as RouteLostWriteError,
    )
