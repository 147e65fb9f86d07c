"""The parts of one pt and how they are wired; `Pt` is their public face.

What flows where::

    kernel ─▶ Follower ─▶ Cache ─▶ ChangeBatch ─┬─▶ Reassessor ─▶ Registry ─▶ cancel, disconnect
                                                ├─▶ events ─▶ Broadcast ─▶ subscribers
                                                ├─▶ Pulse ─▶ whoever waits for a route
                                                └─▶ Detector ─▶ PortalChanged
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import trio

from ._announce import announce
from ._broadcast import Broadcast, Pulse
from ._errors import KernelRefusedError
from ._events import Woke
from ._follow import Follower
from ._selfcheck_answers import Question
from ._services import Services
from ._statistics import Statistics
from ._waking import Waking
from .connections import Bindings, Ground, Policy, Reassessor, Registry
from .netlink import Channel, Kernel, LinuxKernel, NdUserOption
from .portal import Detector, PortalConfig
from .routing import Cache, ChangeBatch

log = logging.getLogger("trio_routes")


class Engine:
    """Everything that one pt owns. Opens its netlink socket at once; `start` runs its tasks."""

    def __init__(self, kernel: Kernel, policy: Policy, portal: PortalConfig | None) -> None:
        self.cache: Cache = Cache()
        self.broadcast: Broadcast = Broadcast()
        self.pulse: Pulse = Pulse()
        self._channel: Channel | None = None
        try:
            self._channel = Channel(kernel.open_netlink())
        except OSError as error:
            log.warning("connections are not monitored: %s", error)
        self.registry: Registry = Registry(
            self.cache,
            policy=policy,
            publish=self.broadcast.publish,
            monitoring=self._is_monitoring,
            netns_cookie=None if self._channel is None else self._channel.netns_cookie,
        )
        self._follower: Follower | None = None
        if self._channel is not None:
            self._follower = Follower(
                self._channel,
                self.cache,
                self._on_batch,
                peers=self._questions,
                before_changes=self.registry.take_in,
                on_option=self._on_option,
            )
        self._reassessor = Reassessor(self.registry, self.cache, apply_pending=self._apply_pending)
        self._waking = Waking(self._on_waking)
        self.detector: Detector = Detector(
            kernel,
            portal,
            self.broadcast.publish,
            lambda: self.cache.generation,
            cache=self.cache,
            followed=self._is_monitoring,
            own_namespace=isinstance(kernel, LinuxKernel) and kernel.own_namespace,
        )
        self.ground: Ground = Ground(
            kernel,
            self.cache,
            self.registry,
            self.pulse,
            self._is_monitoring,
            Bindings(self.cache, self.broadcast.publish),
        )

    @property
    def monitoring(self) -> bool:
        """Whether the kernel's tables are followed. If not, no connection is ever judged."""
        return self._follower is not None and self._follower.ready.is_set()

    @property
    def routes_read(self) -> int:
        """How many routes dumps have brought so far; grows while the tables are being read."""
        return 0 if self._follower is None else self._follower.statistics.routes_read

    def _is_monitoring(self) -> bool:
        return self.monitoring

    def _questions(self) -> Iterator[Question]:
        """What the connections depend on, as far as the kernel can be asked for it."""
        for connection in self.registry:
            flow = connection.flow
            # Of a transparent flow the source is not this host's, which RTM_GETROUTE would refuse.
            if flow.peer is not None and not flow.unjudged and not flow.transparent:
                yield Question(flow.peer, flow.local, flow.device or 0, flow.mark, flow.tos, flow.uid or 0)

    def _on_batch(self, batch: ChangeBatch) -> None:
        self._waking.look()  # before anybody becomes suspect of what the machine did to fall asleep
        # First who may be affected is marked, so that nobody who reads a standing from an event sees a stale one.
        self._reassessor.touch(batch)
        announce(batch, self.broadcast, trio.current_time())
        self.ground.bindings.touch()
        self.pulse.beat(batch.generation)
        self.detector.on_batch(batch)
        self._reassessor.take_turn()

    def _on_option(self, option: NdUserOption) -> None:
        self.detector.advertised(option)

    def _on_waking(self, slept_seconds: float) -> None:
        log.info("the machine slept for %.0f s", slept_seconds)
        self._reassessor.woke(slept_seconds)
        self.detector.woke()
        self.broadcast.publish(
            Woke(generation=self.cache.generation, time=trio.current_time(), slept_seconds=slept_seconds)
        )

    def _apply_pending(self) -> None:
        self._waking.look()
        if self._follower is not None:
            self._follower.apply_pending()

    async def start(self, services: Services) -> None:
        """Start the tasks; the tables are complete when this returns. A checkpoint."""
        if self._follower is not None:
            try:
                await services.start(self._follower.run)
            except (KernelRefusedError, PermissionError) as error:
                log.warning("connections are not monitored: %s", error)
                self._close_channel()
                self._channel = self._follower = None
        await services.start(self._reassessor.run)
        await services.start(self._waking.run)
        await services.start(self.detector.run)

    def close(self) -> None:
        """End what is not a task: registrations, subscriptions, the socket."""
        self.registry.close()
        self.broadcast.close()
        self.pulse.close()
        self._close_channel()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def statistics(self) -> Statistics:
        """Count."""
        channel, follower = self._channel, self._follower
        registry = self.registry.statistics()
        return Statistics(
            monitoring=self.monitoring,
            resyncing=self.cache.resyncing,
            generation=self.cache.generation,
            links=len(self.cache.links),
            routes=sum(map(len, self.cache.state.tables.values())),
            receive_buffer=0 if channel is None else channel.receive_buffer,
            datagrams=0 if channel is None else channel.statistics.datagrams,
            octets=0 if channel is None else channel.statistics.octets,
            forged=0 if channel is None else channel.statistics.forged,
            overruns=0 if channel is None else channel.statistics.overruns,
            truncated=0 if channel is None else channel.statistics.truncated,
            undecodable=0 if follower is None else follower.statistics.undecodable,
            resyncs=0 if follower is None else follower.statistics.resyncs,
            audits=0 if follower is None else follower.statistics.audits,
            audit_differences=0 if follower is None else follower.statistics.audit_differences,
            dump_exceptions=0 if follower is None else follower.statistics.dump_exceptions,
            self_checks=0 if follower is None else follower.self_check.statistics.checks,
            self_check_differences=0 if follower is None else follower.self_check.statistics.differences,
            self_check_exceptions=0 if follower is None else sum(follower.self_check.statistics.exemptions.values()),
            repeated_dumps=0 if follower is None else follower.statistics.repeated_dumps,
            connections=registry.registered,
            asked=registry.asked,
            damped=registry.damped,
            lost=registry.lost,
        )
