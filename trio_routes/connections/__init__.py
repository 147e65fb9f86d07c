"""Connections: what decides their paths, what a change does to them, and what is done about it."""

from ._account import Account as Account
from ._bindings import Bindings as Bindings
from ._connect import open_ssl_over_tcp_stream as open_ssl_over_tcp_stream, open_tcp_stream as open_tcp_stream
from ._connection import Connection as Connection, Loss as Loss
from ._flow import Abortable as Abortable, Flow as Flow, flow_of as flow_of, socket_of as socket_of
from ._forecast import Fate as Fate, Forecast as Forecast, Prospect as Prospect
from ._ground import Ground as Ground
from ._guard import guard as guard
from ._hints import TcpHints as TcpHints
from ._listeners import (
    GuardedListener as GuardedListener,
    guard_listener as guard_listener,
    serve_ssl_over_tcp as serve_ssl_over_tcp,
    serve_tcp as serve_tcp,
)
from ._new_sockets import guard_new_sockets as guard_new_sockets
from ._options import ConnectOptions as ConnectOptions
from ._policy import Policy as Policy, Probe as Probe
from ._prober import Askable as Askable, ProbeAnswer as ProbeAnswer
from ._reassess import Reassessor as Reassessor
from ._reconnect import (
    DEFAULT_BACKOFF as DEFAULT_BACKOFF,
    Backoff as Backoff,
    keep_connected as keep_connected,
    wait_routable as wait_routable,
)
from ._registry import Registry as Registry, RegistryStatistics as RegistryStatistics
from ._stream import GuardedStream as GuardedStream, guard_stream as guard_stream
from ._suppose import Change as Change
from ._verdict import Standing as Standing, Verdict as Verdict, VerdictClass as VerdictClass
from ._view import Connections as Connections
