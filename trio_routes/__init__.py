"""Connections that stay true to the network: Trio, structured, on the kernel's own word."""

import logging as _logging

from ._errors import (
    KernelRefusedError as KernelRefusedError,
    NetlinkDecodeError as NetlinkDecodeError,
    NoRouteError as NoRouteError,
    RouteLostError as RouteLostError,
)
from ._events import (
    AddressAdded as AddressAdded,
    AddressRemoved as AddressRemoved,
    ConnectionLost as ConnectionLost,
    ConnectionRecovered as ConnectionRecovered,
    ConnectionRerouted as ConnectionRerouted,
    ConnectionSuspect as ConnectionSuspect,
    Event as Event,
    GatewayChanged as GatewayChanged,
    Lagged as Lagged,
    LinkDown as LinkDown,
    LinkPortalChanged as LinkPortalChanged,
    LinkUp as LinkUp,
    ListenerDown as ListenerDown,
    ListenerUp as ListenerUp,
    PortalChanged as PortalChanged,
    PortalExpiring as PortalExpiring,
    Resynced as Resynced,
    RouteAdded as RouteAdded,
    RouteRemoved as RouteRemoved,
    RouteReplaced as RouteReplaced,
    RuleChanged as RuleChanged,
    Woke as Woke,
)
from ._pt import Pt as Pt, open_pt as open_pt
from ._routes import Routes as Routes
from ._statistics import Statistics as Statistics
from ._version import __version__ as __version__
from .connections import (
    Account as Account,
    Backoff as Backoff,
    Change as Change,
    Connection as Connection,
    Connections as Connections,
    ConnectOptions as ConnectOptions,
    Fate as Fate,
    Flow as Flow,
    Forecast as Forecast,
    GuardedListener as GuardedListener,
    GuardedStream as GuardedStream,
    Loss as Loss,
    Policy as Policy,
    Probe as Probe,
    Prospect as Prospect,
    Standing as Standing,
    TcpHints as TcpHints,
    Verdict as Verdict,
)
from .netlink import Kernel as Kernel
from .portal import (
    Capport as Capport,
    Endpoint as Endpoint,
    Evidence as Evidence,
    Finding as Finding,
    LinkHints as LinkHints,
    LinkPortal as LinkPortal,
    PortalConfig as PortalConfig,
    PortalKind as PortalKind,
    PortalProbe as PortalProbe,
    PortalState as PortalState,
    PortalView as PortalView,
    Question as Question,
    Way as Way,
)
from .routing import (
    Address as Address,
    Explanation as Explanation,
    Link as Link,
    Outcome as Outcome,
    Resolution as Resolution,
    Route as Route,
    Rule as Rule,
    Step as Step,
    Why as Why,
)

_logging.getLogger(__name__).addHandler(_logging.NullHandler())
