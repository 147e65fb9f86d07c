"""httpx over guarded streams: a transport for `httpx.AsyncClient`."""

from ._extra import needs

with needs("httpx", "httpx"):
    from ._httpx import (
        GuardedTransport as GuardedTransport,
        RouteLostConnectError as RouteLostConnectError,
        RouteLostReadError as RouteLostReadError,
        RouteLostWriteError as RouteLostWriteError,
        TransportOptions as TransportOptions,
    )
