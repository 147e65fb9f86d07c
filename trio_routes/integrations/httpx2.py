"""httpx2 over guarded streams: a transport for `httpx2.AsyncClient`."""

from ._extra import needs

with needs("httpx2", "httpx2"):
    from ._httpx2 import (
        GuardedTransport as GuardedTransport,
        RouteLostConnectError as RouteLostConnectError,
        RouteLostReadError as RouteLostReadError,
        RouteLostWriteError as RouteLostWriteError,
        TransportOptions as TransportOptions,
    )
