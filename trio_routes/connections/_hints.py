"""TCP settings for what no routing table shows: a peer, a NAT or a second hop that died silently.

When nothing local changes there is no event, and an idle connection stays open for ever, a
sending one for some 15 minutes (tcp_retries2, ip-sysctl.rst). Two kernel settings bound both:
keepalive probes find it out while idle, TCP_USER_TIMEOUT while data is unacknowledged.
"""

from __future__ import annotations

import socket
from typing import Protocol

import attrs


class _HasOptions(Protocol):
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def _whole_seconds(hints: TcpHints, attribute: attrs.Attribute[int], value: int) -> None:
    # tcp(7): MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL are 32767, MAX_TCP_KEEPCNT is 127 (include/net/tcp.h)
    highest = 127 if attribute.name == "keepalive_count" else 32767
    if not 1 <= value <= highest or value != int(value):
        raise ValueError(f"{attribute.name} must be a whole number from 1 to {highest}, not {value}")


@attrs.frozen
class TcpHints:
    """How soon TCP itself gives up a silent peer; the defaults find it out within a minute.

    15 s idle and 15 s between probes are Go's defaults for every TCP connection (net.KeepAliveConfig);
    three probes in place of Linux's nine make it idle + count * interval = 60 s, and TCP_USER_TIMEOUT is
    that same sum, because it overrides the count of probes (tcp(7), RFC 5482): a shorter one would cut the
    probing short, a longer one prolong it.

    Attributes:
      keepalive_idle: Seconds of silence before the first probe (TCP_KEEPIDLE).
      keepalive_interval: Seconds between probes (TCP_KEEPINTVL).
      keepalive_count: Unanswered probes that end the connection (TCP_KEEPCNT).
      user_timeout: Seconds for which sent data may stay unacknowledged (TCP_USER_TIMEOUT); None leaves it to
        tcp_retries2.
    """

    keepalive_idle: int = attrs.field(default=15, validator=_whole_seconds)
    keepalive_interval: int = attrs.field(default=15, validator=_whole_seconds)
    keepalive_count: int = attrs.field(default=3, validator=_whole_seconds)
    user_timeout: float | None = 60.0

    def __attrs_post_init__(self) -> None:
        # The kernel takes an int of milliseconds, and refuses a negative one; 0 is the system's default (tcp(7)), for
        # which there is None.
        longest = 0x7FFFFFFF / 1000
        if self.user_timeout is not None and not 0.001 <= self.user_timeout <= longest:  # NaN neither
            raise ValueError(f"user_timeout must be None, or from 0.001 to {longest} seconds, not {self.user_timeout}")

    def apply_to(self, sock: _HasOptions) -> None:
        """Set the options on a TCP socket.

        Raises:
          OSError: It is no TCP socket, or it is closed.
        """
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, self.keepalive_idle)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, self.keepalive_interval)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, self.keepalive_count)
        if self.user_timeout is not None:
            sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, round(self.user_timeout * 1000))  # milliseconds
