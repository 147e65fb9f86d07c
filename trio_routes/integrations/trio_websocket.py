"""trio-websocket's client and server over guarded streams."""

from ._extra import needs

with needs("trio_websocket", "trio-websocket"):
    from ._trio_websocket import (
        GuardedWebSocketServer as GuardedWebSocketServer,
        WebSocketOptions as WebSocketOptions,
        open_websocket_url as open_websocket_url,
        serve_websocket as serve_websocket,
    )
