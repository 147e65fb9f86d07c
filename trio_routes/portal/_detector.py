"""What is behind each link and the default path: who is asked when, and who is told.

    a batch of changes ─▶ survey of the links it touches ─▶ a prospect differs ─▶ that path's Pursuit is triggered
    the machine woke   ─▶ all are triggered
    a router advertised something new ─▶ its link's are asked again, a second later

State decides, not events: a path is asked again only if its prospect (`_survey`) is another one than before. So one change
of one gateway costs one run for each family of one link; a default route that moves to a link which is known already
costs none; containers' links cost a look at the tables.

The default path's state is that of the links by which the machine's own tables lead to the Internet, combined. Only where
they lead by something that is not probed (a tunnel), or where nothing is known of links, is it asked about by itself, with
sockets that are bound to nothing.

A change of the default path is told once the settle time is over, so that a route which is away for 30 ms is no news. What
`state` says is true at once.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable

import attrs
import trio

from .._events import Event, LinkPortalChanged, PortalChanged, PortalExpiring
from ..netlink import IPAddress, NdUserOption
from ..routing import Cache, ChangeBatch
from ._advertised import Advertised
from ._config import LinkHints, PortalConfig
from ._evidence import Evidence, Finding, Question
from ._examination import Examiner
from ._hints import Known, first_known, machines_run_directory, read_state_files
from ._pursuit import SETTLE_SECONDS, Pursuit
from ._rules import PortalKind, PortalState, combine, judge, same_finding, unknown
from ._survey import ANY_PATH, Path, Prospect, default_paths, survey
from ._way import Network, TlsContext, Way

# An advertisement costs its sender nothing; what it makes us ask shall not come more often than this.
ADVERTISED_SECONDS = 1.0

_logger = logging.getLogger("trio_routes.portal")


class Detector:
    """Finds out what is behind the links and the default path; one per pt.

    Args:
      network: Where names are resolved and connections made: the pt's `Kernel`.
      config: Whom to ask. None, or one that says `on_demand`, turns detection off: nothing is sent unless `check` is called.
      publish: Takes the events; must not block.
      generation: The routing cache's generation now.
      cache: The tables. None, or `followed` saying no when `run` begins, is that nothing is known of links.
      followed: Whether the cache is kept true to the kernel.
      own_namespace: Whether links are counted as in the process' own network namespace, as the files in /run do.
    """

    def __init__(
        self,
        network: Network,
        config: PortalConfig | None,
        publish: Callable[[Event], None],
        generation: Callable[[], int],
        *,
        cache: Cache | None = None,
        followed: Callable[[], bool] = lambda: True,
        own_namespace: bool = False,
    ) -> None:
        self._network = network
        self._enabled = config is not None and not config.on_demand
        self._config = config or PortalConfig()
        self._publish = publish
        self._generation = generation
        self._cache = cache
        self._followed = followed
        self._run_directory = self._config.run_directory or (machines_run_directory() if own_namespace else None)
        self._examiner = Examiner(self._config.endpoints, self._config.probes)
        self._tls = TlsContext(self._config.tls)
        literals = (endpoint.literal for endpoint in self._config.endpoints)
        self._targets: tuple[IPAddress, ...] = tuple(literal for literal in literals if literal is not None)
        self._advertised = Advertised()
        self._prospects: dict[Path, Prospect] = {}
        self._pursuits: dict[Path, Pursuit] = {}
        self._default: frozenset[Path] = frozenset()  # as the tables say, links that are not probed included
        self._told = unknown(generation())
        self._tell_at = -math.inf
        self._telling = False
        self._changed = trio.Event()  # a new one for every finding and every change
        self._nursery: trio.Nursery | None = None
        self._begun = False
        self._checked = False  # somebody wanted to know; where there are no links, that is all that looking takes
        self._closed = False

    # ---- what is known -----------------------------------------------------------------------

    @property
    def state(self) -> PortalState:
        """What is known of the default path of now; open from a change until the run that it causes is over."""
        members = self._members()
        if members:
            return combine((self._pursuits[path].state for path in sorted(members)), self._generation())
        return self._without_default()

    def _members(self) -> set[Path]:
        """The paths whose states make up the default path's."""
        if self._cache is None or not self._config.per_link:
            return {ANY_PATH} & self._pursuits.keys()
        return {path if self._is_probed(path) else ANY_PATH for path in self._default} & self._pursuits.keys()

    def _is_probed(self, path: Path) -> bool:
        prospect = self._prospects.get(path)
        return prospect is not None and prospect.obstacle is not Finding.NOT_PROBED

    def _without_default(self) -> PortalState:
        """The state where the tables lead nowhere."""
        states = [pursuit.state for pursuit in self._pursuits.values()]
        looked = states or self._enabled or self._checked
        if self._nursery is None or any(state.open for state in states) or not looked:
            return unknown(self._generation())
        no_link = all(state.kind in (PortalKind.NO_LINK, PortalKind.UNKNOWN) for state in states)
        finding = Finding.NO_CARRIER if no_link else Finding.NO_DEFAULT_ROUTE
        return judge([self._fact(finding, "no route leads to the Internet")], self._generation())

    def paths(self) -> dict[Path, tuple[str, PortalState]]:
        """What is known of each link and family: the link's name and the state."""
        return {
            path: (self._prospects[path].name, pursuit.state)
            for path, pursuit in sorted(self._pursuits.items())
            if path in self._prospects
        }

    # ---- what changes ------------------------------------------------------------------------

    def on_batch(self, batch: ChangeBatch) -> None:
        """Take a batch of changes in: look at what it touches. Not a checkpoint; costs nothing where it touches no link."""
        if self._nursery is None or self._cache is None:
            return
        if batch.gateways or batch.rules or batch.resynced or self._touches_target(batch):
            self._survey(None, "a default route's gateways, or the rules, changed")
            return
        touched = {side.ifindex for link in batch.links for side in (link.old, link.new) if side is not None}
        touched |= {
            side.ifindex for address in batch.addresses for side in (address.old, address.new) if side is not None
        }
        if touched:
            self._survey(touched, "a link or its addresses changed")

    def woke(self) -> None:
        """Say that the machine slept: it may be elsewhere now."""
        self._trigger(self._pursuits.values(), "the machine woke")

    def advertised(self, option: NdUserOption) -> None:
        """Take an option of a router advertisement in. Not a checkpoint."""
        news = self._advertised.take(option, trio.current_time())
        prospect = self._prospects.get((option.ifindex, 6))
        if news and prospect is not None:  # the route by that router may have been there before its words
            self._advertised.led_by(option.ifindex, prospect.gateways)
        if news and self._enabled:
            for path, pursuit in self._pursuits.items():
                if path[0] == option.ifindex:
                    pursuit.ask(after=ADVERTISED_SECONDS)

    def trigger(self, reason: str) -> None:
        """Say that what was known of all paths may not hold any more."""
        self._trigger(self._pursuits.values(), reason)

    def _touches_target(self, batch: ChangeBatch) -> bool:
        if not self._targets:
            return False
        routes = (side for change in batch.routes for side in (change.old_route, change.new_route) if side is not None)
        return any(target in route.destination for route in routes for target in self._targets)

    def _survey(self, ifindexes: Iterable[int] | None, reason: str) -> None:
        cache = self._cache
        assert cache is not None
        chosen = None if ifindexes is None else frozenset(ifindexes)
        prospects = survey(cache, self._targets, chosen, uid=os.geteuid())
        before = {path for path in self._prospects if chosen is None or path[0] in chosen}
        differing = {path for path in before | prospects.keys() if prospects.get(path) != self._prospects.get(path)}
        for path in differing & before - prospects.keys():
            del self._prospects[path]
            self._drop(path)
        self._prospects.update({path: prospects[path] for path in differing & prospects.keys()})
        for ifindex, family in differing:
            if family == 6:
                self._mind_routers(ifindex, prospects.get((ifindex, family)))
        default = default_paths(cache, self._targets, uid=os.geteuid())
        moved, self._default = default != self._default, default
        triggered = differing & prospects.keys() if self._config.per_link else set[Path]()
        if self._needs_any_path() and (moved or differing & default or ANY_PATH not in self._pursuits):
            triggered.add(ANY_PATH)
        elif not self._needs_any_path():
            self._drop(ANY_PATH)
        pursuits = [self._pursuit(path) for path in sorted(triggered)]
        if self._begun:
            self._trigger(pursuits, reason)
            if differing or moved:
                self._wake()

    def _needs_any_path(self) -> bool:
        if self._cache is None or not self._config.per_link:
            return True
        return any(not self._is_probed(path) for path in self._default)

    def _pursuit(self, path: Path) -> Pursuit:
        if path not in self._pursuits:
            self._pursuits[path] = Pursuit(
                path,
                find=self._find,
                found=self._on_finding,
                start=self._start,
                generation=self._generation,
                enabled=self._enabled,
            )
        return self._pursuits[path]

    def _drop(self, path: Path) -> None:
        pursuit = self._pursuits.pop(path, None)
        if pursuit is not None:
            pursuit.end("the path is gone")

    def _mind_routers(self, ifindex: int, prospect: Prospect | None) -> None:
        if prospect is None or prospect.obstacle is Finding.NO_CARRIER:
            self._advertised.drop(ifindex)
        else:
            self._advertised.led_by(ifindex, prospect.gateways)

    def _trigger(self, pursuits: Iterable[Pursuit], reason: str) -> None:
        for pursuit in tuple(pursuits):
            pursuit.trigger(reason)
        self._wake()

    def _wake(self) -> None:
        """Let whoever waits look again, and tell the default path's state once it has settled."""
        if self._closed:
            return
        self._look_again()
        if self._enabled and self._nursery is not None:
            self._tell_at = trio.current_time() + SETTLE_SECONDS
            if not self._telling:
                self._telling = True
                self._nursery.start_soon(self._tell_later)

    def _look_again(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- finding out -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve changes and checks until cancelled. Run it once."""
        try:
            async with trio.open_nursery() as self._nursery:
                if not self._followed():
                    self._cache = None
                if self._cache is None:
                    self._pursuit(ANY_PATH)
                else:
                    self._survey(None, "the beginning")
                self._begun = True
                if self._enabled:
                    for pursuit in self._pursuits.values():
                        pursuit.ask()
                    self._telling = True
                    self._nursery.start_soon(self._tell_later)
                self._look_again()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._closed, self._nursery = True, None
            self._changed.set()  # and so it stays: whoever asks now is told

    def _start(self, pursuit: Pursuit) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(pursuit.run, name=f"portal detection of path {pursuit.path}")

    async def _find(self, path: Path) -> PortalState:
        """Look into one path once. A checkpoint."""
        generation = self._generation()
        await trio.lowlevel.checkpoint()
        obstacle = self._obstacle(path)
        if obstacle is not None:
            return judge([obstacle], generation)
        known = self._known(path)
        way = Way(
            network=self._network,
            tls=self._tls.get,
            device=self._prospects[path].name if path in self._prospects else None,
            ifindex=path[0],
            family=path[1],
            resolvers=known.resolvers,
        )
        evidence = await self._examiner.examine(way, known)
        return judge([attrs.evolve(one, generation=generation) for one in evidence], generation)

    def _obstacle(self, path: Path) -> Evidence | None:
        """What the tables know already; None if the path is to be asked."""
        if path in self._prospects:
            finding = self._prospects[path].obstacle
            return (
                None if finding is None else self._fact(finding, f"so say the tables of {self._prospects[path].name}")
            )
        if self._cache is not None and not self._default:
            return self._fact(Finding.NO_DEFAULT_ROUTE, "no route leads to the Internet")
        return None

    def _fact(self, finding: Finding, detail: str) -> Evidence:
        return Evidence(
            question=Question.TABLES,
            finding=finding,
            detail=detail,
            time=trio.current_time(),
            generation=self._generation(),
        )

    def _known(self, path: Path) -> Known:
        if path not in self._prospects:
            return Known()
        ifindex, hints = path[0], self._config.hints.get(self._prospects[path].name, LinkHints())
        told = Known(api_url=hints.api_url, api_source="the application", resolvers=hints.resolvers)
        routers = Known(
            api_url=self._advertised.api_url(ifindex),
            api_source="a router advertisement",
            resolvers=self._advertised.resolvers(ifindex, trio.current_time()),
        )
        files = [] if self._run_directory is None else read_state_files(self._run_directory, ifindex)
        return first_known([told, routers, *files])

    # ---- telling -----------------------------------------------------------------------------

    def _on_finding(self, pursuit: Pursuit) -> None:
        path, state, before = pursuit.path, pursuit.state, pursuit.told
        pursuit.told = state
        if path in self._prospects and not same_finding(before, state):
            name = self._prospects[path].name
            _logger.info("behind %s by IPv%d: %s", name, path[1], _in_words(state))
            self._publish(
                LinkPortalChanged(
                    generation=self._generation(),
                    time=trio.current_time(),
                    ifindex=path[0],
                    family=path[1],
                    before=before,
                    state=state,
                )
            )
        self._mind_expiry(pursuit)
        if trio.current_time() >= self._tell_at:
            self._tell()
        self._look_again()

    def _mind_expiry(self, pursuit: Pursuit) -> None:
        if not (self._enabled and pursuit.expiring and not pursuit.warned):
            return
        pursuit.warned = True
        ifindex, family = pursuit.path
        self._publish(
            PortalExpiring(
                generation=self._generation(),
                time=trio.current_time(),
                ifindex=ifindex,
                family=family,
                state=pursuit.state,
            )
        )

    async def _tell_later(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            while trio.current_time() < self._tell_at:  # noqa: ASYNC110  # a time that others move, not a condition
                await trio.sleep_until(self._tell_at)
            self._tell()
        finally:
            self._telling = False

    def _tell(self) -> None:
        before, state = self._told, self.state
        if state.open or same_finding(before, state):
            return
        self._told = state
        _logger.info("behind the default path: %s", _in_words(state))
        self._publish(
            PortalChanged(generation=self._generation(), time=trio.current_time(), before=before, state=state)
        )

    # ---- asking ------------------------------------------------------------------------------

    async def check(self, ifindex: int | None = None) -> PortalState:
        """Ask once now, or wait for the runs that are under way, and return what they found. A checkpoint.

        Works with detection off, too; the answer is then not kept up to date. A network that changes meanwhile is asked
        again; there is no timeout other than the caller's. A run takes at most 13 s, and 3 s more for each five questions
        that are before it in the queue and get no answer, as where many links lead nowhere.

        Args:
          ifindex: The link to ask by; None is all of them.

        Returns:
          The link's state, of both families together; or the default path's.

        Raises:
          LookupError: There is no such link, or it is one that is never probed.
          trio.ClosedResourceError: The pt has ended.
        """
        await trio.lowlevel.checkpoint()
        while not self._begun:
            await self._next_change()
        wanted = self._wanted(ifindex)
        for pursuit in wanted:
            pursuit.ask()
        while any(pursuit.pending or pursuit.state.open for pursuit in wanted):
            await self._next_change()
            wanted = self._wanted(ifindex)
            for pursuit in wanted:
                if pursuit.state.open:  # the network changed between the finding and our turn
                    pursuit.ask()
        self._raise_if_closed()
        if ifindex is None:
            self._checked = True
            return self.state
        return combine((pursuit.state for pursuit in wanted), self._generation())

    def _wanted(self, ifindex: int | None) -> list[Pursuit]:
        wanted = [pursuit for path, pursuit in self._pursuits.items() if ifindex in (None, path[0])]
        if ifindex is not None and not wanted:
            raise LookupError(f"there is no link {ifindex} that could be probed")
        return wanted

    async def wait_online(self) -> None:
        """Return once the default path of now is known to reach the Internet. A checkpoint.

        Raises:
          RuntimeError: Detection is off, so nobody would ever know.
          trio.ClosedResourceError: The pt has ended.
        """
        if not self._enabled:
            raise RuntimeError("portal detection is off; give open_pt() a PortalConfig to wait for the Internet")
        await trio.lowlevel.checkpoint()
        while self._closed or self.state.kind is not PortalKind.ONLINE:
            await self._next_change()

    async def _next_change(self) -> None:
        self._raise_if_closed()
        await self._changed.wait()
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the pt has ended, and its portal detection with it")


def _in_words(state: PortalState) -> str:
    return f"{state.kind.value} at {state.url}" if state.url else state.kind.value
