"""The demo's acts: the Wi-Fi goes away in five ways, is reconfigured, and gives way to a captive portal."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
import trio

from .. import (
    ConnectionRecovered,
    ConnectionSuspect,
    Endpoint,
    GuardedStream,
    Policy,
    PortalChanged,
    PortalConfig,
    PortalKind,
    RouteLostError,
    open_pt,
)
from ._demo_report import ActResult, in_words
from ._demo_scene import ECHO_PORT, LOGIN, LOOPBACK, PROBED, Scene, open_scene

# Seconds that the plain connection is watched after the guarded one has ended.
_PLAIN_WATCHED = 0.7
# No act takes this long; on a machine that stands still the demo fails rather than hangs.
_ACT_BOUND = 15.0
# "Within milliseconds", with room for a busy machine.
_PROMPT = 0.5

Say = Callable[[str], None]


@attrs.frozen
class Loss:
    """One way in which the Wi-Fi goes away.

    Attributes:
      name: For the table.
      story: What is said when it happens.
      act: Does it.
      route_stays: The families whose default route by the Wi-Fi stays, until a network manager withdraws it.
    """

    name: str
    story: str
    act: Callable[[Scene], None]
    route_stays: frozenset[int] = frozenset()


LOSSES = (
    Loss("(a) route deleted", "the default route by the Wi-Fi is deleted", Scene.delete_wifi_route),
    Loss(
        "(b) address removed",
        "the device's Wi-Fi address is removed",
        lambda scene: scene.net.wlan0.delete_address(scene.wifi_address),
        frozenset({6}),  # IPv4 is off on a link without an address, and its routes go; IPv6 stays on
    ),
    Loss("(c) link down", "wlan0 is set down", lambda scene: scene.net.wlan0.down()),
    Loss(
        "(d) carrier lost",
        "the Wi-Fi's cable is pulled: wlan0 stays up, without carrier",
        lambda scene: scene.net.wlan0.carrier(False),
        frozenset({4, 6}),
    ),
    Loss("(e) default moves to LTE", "a better default route appears, by LTE", Scene.prefer_lte),
)


class Client:
    """A guarded client as an application would write it: echo one byte, then wait for the server to speak."""

    def __init__(self) -> None:
        self.waiting = trio.Event()
        self.lost = trio.Event()
        self.ended_at = 0.0
        self.error: RouteLostError | None = None
        self.returned_at = 0.0

    async def __call__(self, stream: GuardedStream) -> None:
        await _exchange(stream)
        if self.error is not None:
            self.returned_at = time.perf_counter()
            return
        self.waiting.set()
        try:
            await stream.receive_some()
        except RouteLostError as error:
            self.ended_at = time.perf_counter()
            self.error = error
            self.lost.set()
            raise


async def lose_the_wifi(loss: Loss, family: Literal[4, 6], say: Say) -> ActResult:
    """Play one of the five ways: the guarded connection ends, the plain one hangs, the others live."""
    result = ActResult(loss.name)
    async with open_scene(family) as scene, open_pt(netns=scene.device.netns, policy=Policy.immediate()) as pt:
        client, ended = Client(), trio.Event()
        plain = await scene.device.open_tcp_stream(scene.server, ECHO_PORT)
        neighbour = await pt.open_tcp_stream(scene.net.neighbour_addresses[family], ECHO_PORT)
        loopback = await pt.open_tcp_stream(LOOPBACK[family], ECHO_PORT)
        await _exchange(plain)
        async with plain, neighbour, loopback, trio.open_nursery() as nursery:
            plain_watch = trio.CancelScope()
            plain_hung = trio.Event()
            nursery.start_soon(_hang, plain, plain_watch, plain_hung)
            nursery.start_soon(_run_to_end, pt.keep_connected, client, scene.server, ended)
            await client.waiting.wait()
            await trio.testing.wait_all_tasks_blocked()
            say(f"{loss.story}; a guarded and a plain connection wait in receive_some()")
            before = time.perf_counter()
            loss.act(scene)
            with trio.move_on_after(_ACT_BOUND / 2):
                await client.lost.wait()
            if client.error is not None:
                heard = await scene.witness.first_since(before)
                # The witness may get its turn after us; then the beginning of the deed is the only bound there is.
                result.ended_after = client.ended_at - (heard if heard <= client.ended_at else before)
                result.reason = client.error.verdict.value
                say(f"guarded: ended {in_words(result.ended_after)} after the kernel's message: {client.error}")
            result.expectations["the guarded one ended promptly"] = (
                result.ended_after is not None and result.ended_after < _PROMPT
            )
            await trio.sleep(_PLAIN_WATCHED)
            result.expectations["the plain one still hangs"] = not plain_hung.is_set()
            say(f"plain: {'still hanging' if not plain_hung.is_set() else 'ended'} {_PLAIN_WATCHED} s later")
            plain_watch.cancel()
            for name, stream in (("neighbour", neighbour), ("loopback", loopback)):
                alive = await _is_alive(stream)
                result.expectations[f"the {name} one lives"] = alive
                say(f"{name}: {'alive, a byte went there and back' if alive else 'dead'}")
            withdrawn = family in loss.route_stays
            if withdrawn:
                say("the network manager withdraws the route")
                scene.delete_wifi_route()
            with trio.move_on_after(_ACT_BOUND / 2):
                await ended.wait()
            if client.returned_at:
                # Only where there was a way by LTE from the beginning does the time say something.
                result.returned_after = None if withdrawn else client.returned_at - client.ended_at
                result.note = "back once the route was withdrawn" if withdrawn else ""
                say("guarded: connected again, over LTE")
            result.expectations["the guarded one is back over LTE"] = bool(client.returned_at)
            nursery.cancel_scope.cancel()
    return result


async def reapply(family: Literal[4, 6], say: Say) -> ActResult:
    """Take address and routes away and put them back some 30 ms later, as `nmcli device reapply` does: nothing closes."""
    result = ActResult("taken away and put back")
    async with open_scene(family) as scene, open_pt(netns=scene.device.netns) as pt:
        stream = await pt.open_tcp_stream(scene.server, ECHO_PORT)
        await _exchange(stream)
        with pt.subscribe(ConnectionSuspect, ConnectionRecovered) as events:
            started = time.perf_counter()
            scene.net.wlan0.delete_address(scene.wifi_address)
            if family == 6:
                scene.delete_wifi_route()  # an IPv6 default route does not go with the address
            await trio.sleep(0.01)  # with the calls around it, some 15 to 30 ms
            scene.net.wlan0.add_address(scene.wifi_address)
            scene.add_wifi_route()
            gone = time.perf_counter() - started
            say(f"address and default route were away for {in_words(gone)}, as in `nmcli device reapply`")
            seen: list[str] = []
            with trio.move_on_after(_ACT_BOUND / 2):
                while len(seen) < 2:
                    seen.append(type(await events.receive()).__name__)
        # The default policy's second has to be over before it is sure that nothing was closed.
        await trio.sleep(max(0.0, 1.2 - (time.perf_counter() - started)))
        alive = await _is_alive(stream)
        await stream.aclose()
        say(f"guarded: {'suspect, then good again, and alive' if alive else 'dead'}")
        result.note = f"away {in_words(gone)}, nothing closed" if alive else "closed"
        result.expectations["it was suspected and acquitted"] = seen == ["ConnectionSuspect", "ConnectionRecovered"]
        result.expectations["it lives"] = alive
    return result


async def find_the_portal(family: Literal[4, 6], say: Say) -> ActResult:
    """Move from the Wi-Fi to LTE, where a captive portal intercepts HTTP."""
    result = ActResult("captive portal")
    host = PROBED[family] if family == 4 else f"[{PROBED[family]}]"
    config = PortalConfig(endpoints=(Endpoint(f"http://{host}/generate_204"),))
    async with open_scene(family) as scene, open_pt(netns=scene.device.netns, portal=config) as pt:
        with trio.move_on_after(_ACT_BOUND / 2):
            await pt.portal.wait_online()
        result.expectations["online over the Wi-Fi"] = pt.portal.state.kind is PortalKind.ONLINE
        say(f"over the Wi-Fi the probe says: {pt.portal.state.result}")
        with pt.subscribe(PortalChanged) as events:
            moved = time.perf_counter()
            scene.prefer_lte()
            with trio.move_on_after(_ACT_BOUND / 2):
                await events.receive()
        took = time.perf_counter() - moved
        state = pt.portal.state
        found = state.kind is PortalKind.PORTAL and state.url == LOGIN
        result.expectations["the portal is found after the gateway changed"] = found
        say(f"{in_words(took)} after the gateway changed to LTE: {state.result}, log in at {state.url}")
        result.note = f"found {in_words(took)} after the change" if found else "not found"
    return result


async def _exchange(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"?")
    if await stream.receive_some(1) != b"?":
        raise AssertionError("the echo server does not echo")


async def _is_alive(stream: trio.abc.Stream) -> bool:
    with trio.move_on_after(2):
        try:
            await _exchange(stream)
        except trio.BrokenResourceError:
            return False
        return True
    return False


async def _hang(stream: trio.SocketStream, watch: trio.CancelScope, ended: trio.Event) -> None:
    with watch:
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass
        ended.set()


async def _run_to_end(
    keep_connected: Callable[[Callable[[GuardedStream], Awaitable[None]], str, int], Awaitable[None]],
    client: Client,
    host: str,
    ended: trio.Event,
) -> None:
    await keep_connected(client, host, ECHO_PORT)
    ended.set()
