"""`pt.statistics()`: counters for operators, as one frozen value."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Statistics:
    """What a pt has done since it was opened.

    Attributes:
      monitoring: Whether the kernel's tables are followed.
      resyncing: Whether they are being read anew at this moment.
      generation: Batches that changed something.
      links: Links known.
      routes: Routes known, of all tables and both families.
      receive_buffer: Bytes of netlink receive buffer that the kernel granted; 0 when unmonitored.
      datagrams: Netlink datagrams read.
      octets: Their bytes.
      forged: Datagrams dropped because their sender was not the kernel.
      overruns: Times that the kernel had to drop notifications.
      truncated: Datagrams that were larger than the read buffer.
      undecodable: Messages that broke their framing.
      resyncs: Times that the tables were read anew after a loss.
      audits: Times that the cache was compared with a dump.
      audit_differences: Entries that those found different, and corrected. Each distinct one is logged once.
      dump_exceptions: What those comparisons met and is known to be wrong in the kernel's dump (an IPv6 route between
        two siblings, a FAILED neighbour that is asked for again); each time counts. Never corrected, never published.
      self_checks: Lookups that were compared with the kernel's answer to RTM_GETROUTE.
      self_check_differences: Those that the kernel answered differently. Each distinct one is logged once, and has the
        tables read anew once.
      self_check_exceptions: Those whose difference says nothing against the cache: the tables changed meanwhile, or the
        kernel's answer cannot be taken literally (docs/kernel.md).
      repeated_dumps: Dumps that were made again because the tables changed under them.
      connections: Connections registered now.
      asked: Times that the far side, or an application's own probe, was asked about a connection.
      damped: Times that a connection was given a longer wait, because its path came and went several times within a minute.
      lost: Connections ended since.
    """

    monitoring: bool
    resyncing: bool
    generation: int
    links: int
    routes: int
    receive_buffer: int
    datagrams: int
    octets: int
    forged: int
    overruns: int
    truncated: int
    undecodable: int
    resyncs: int
    audits: int
    audit_differences: int
    dump_exceptions: int
    self_checks: int
    self_check_differences: int
    self_check_exceptions: int
    repeated_dumps: int
    connections: int
    asked: int
    damped: int
    lost: int
