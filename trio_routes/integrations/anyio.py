"""anyio's socket streams, guarded; under anyio's Trio backend."""

from ._extra import needs

with needs("anyio", "anyio"):
    from ._anyio import (
        GuardedSocketStream as GuardedSocketStream,
        RouteLostResourceError as RouteLostResourceError,
        connect_tcp as connect_tcp,
        serve_tcp as serve_tcp,
    )
