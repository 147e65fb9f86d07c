"""The options of connecting, which every way to connect takes alike."""

from __future__ import annotations

from typing import TypedDict

from ..netlink import IPAddress
from ._hints import TcpHints
from ._policy import Policy, Probe


class ConnectOptions(TypedDict, total=False):
    """How to connect, and how the connection is to be judged; keyword arguments, all optional.

    Attributes:
      local_address: The source address; a wildcard chooses the family only.
      happy_eyeballs_delay: Seconds that each address has before the next is tried beside it; None is 0.25.
      device: Name of the interface to bind to (SO_BINDTODEVICE).
      mark: The packets' mark (SO_MARK); needs CAP_NET_ADMIN or CAP_NET_RAW.
      tcp_hints: Keepalive and TCP_USER_TIMEOUT for the socket, for losses that no local event shows.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      probe: The application's own check of an uncertain path.
      label: A name for events and messages; the host and port where there is none.
    """

    local_address: str | IPAddress | None
    happy_eyeballs_delay: float | None
    device: str | None
    mark: int | None
    tcp_hints: TcpHints | None
    policy: Policy | None
    probe: Probe | None
    label: str
