"""websockets' Trio client and server over guarded streams; needs websockets 17, the first that has them."""

from ._extra import needs

with needs("websockets", "websockets"):
    from ._websockets import (
        ClientOptions as ClientOptions,
        GuardedClientConnection as GuardedClientConnection,
        GuardedServerConnection as GuardedServerConnection,
        ServerOptions as ServerOptions,
        connect as connect,
        serve as serve,
    )
