"""Rows 36, 37, 38, 59, 64 and 68 with the programs that make these changes on real machines.

dhclient and dhcpcd against dnsmasq, radvd, and BIRD; all of them within the hosts, in mount namespaces of their own where
they would write into the machine's /etc, /run or /var.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from tests.lab.waiting import until
from tests.verdicts._advertise import default_gateways
from tests.verdicts._row import BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, Network, Rows
from tests.verdicts._stage import SOON, Stage
from trio_routes import Verdict
from trio_routes.testing import Host, LabProcess

NAT = Network(nat=True)
ROUTED = Network(nat=False)
ROUTED_AND_SPARE = Network(nat=False, spare_gateway=True)
DHCLIENT = ("dhclient", "dnsmasq")
DHCPCD = ("dhcpcd", "dnsmasq")

producers = Rows()
row = producers.row

# ---- DHCP ------------------------------------------------------------------------------------------------------


def _serve_dhcp(stage: Stage, address: str) -> LabProcess:
    """Have the Wi-Fi's router lease one address."""
    # --no-daemon, because dnsmasq changes its groups otherwise, which a user namespace may not allow.
    words = f"""dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=lan0 --bind-interfaces
        --dhcp-range={address},{address},2m --dhcp-option=option:router,{stage.wifi} --dhcp-option=6
        --dhcp-leasefile={stage.scratch}/leases
        --no-ping --dhcp-authoritative"""
    return _start(stage.net.wifi_router, words.split(), _log(stage))


def _start(host: Host, argv: list[str], log: Path) -> LabProcess:
    with log.open("ab") as file:
        return host.start(argv, stdout=file.fileno(), stderr=file.fileno())


def _log(stage: Stage) -> Path:
    return stage.scratch / "dnsmasq.log"


def _acknowledged(stage: Stage) -> int:
    """How many leases were given or renewed."""
    return _log(stage).read_text().count("DHCPACK(") if _log(stage).exists() else 0


async def _renewed(stage: Stage) -> None:
    before = _acknowledged(stage)
    await until(lambda: _acknowledged(stage) > before, seconds=SOON)


def _in_private(*mounts: str) -> list[str]:
    """The start of a command that runs where mounting concerns nobody else."""
    return ["unshare", "--mount", "--uts", "sh", "-ec", "; ".join((*mounts, 'exec "$@"')), "sh"]


def _start_dhclient(stage: Stage, *words: str) -> LabProcess:
    """Debian's dhclient with its own script, which would write to /etc/resolv.conf; it renews every 2 s."""
    (stage.scratch / "resolv.conf").touch()
    # Each is number 1 in a PID namespace of its own, and would take the last one's file for a sign of life.
    (stage.scratch / "dhclient.pid").unlink(missing_ok=True)
    config = stage.scratch / "dhclient.conf"
    config.write_text("request subnet-mask, broadcast-address, routers;\nsupersede dhcp-renewal-time 2;\n")
    place = shlex.quote(str(stage.scratch))
    command = f"dhclient -d -4 -cf {config} -lf {place}/dhclient.leases -pf {place}/dhclient.pid"
    private = _in_private(f"mount --bind {place}/resolv.conf $(readlink -f /etc/resolv.conf)")
    return _start(stage.device, [*private, *command.split(), *words, "wlan0"], stage.scratch / "dhclient.log")


def _start_dhcpcd(stage: Stage) -> LabProcess:
    private = _in_private("mount -t tmpfs none /run", "mount -t tmpfs none /var/lib/dhcpcd")
    command = "dhcpcd --nobackground --config /dev/null --ipv4only --noarp --script /bin/true --persistent wlan0"
    return _start(stage.device, [*private, *command.split()], stage.scratch / "dhcpcd.log")


def _without_address(stage: Stage) -> str:
    """Take from the device what DHCP will give it; the address that it will be."""
    stage.device.delete_route("default", via=stage.wifi, metric=100)
    stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")
    return stage.beside(stage.wlan0, 48)


async def _has_address(stage: Stage, address: str) -> None:
    with trio.fail_after(2 * SOON):
        while True:
            shown = await stage.device.run(["ip", "-4", "address", "show", "dev", "wlan0"])
            way = await stage.device.run(["ip", "-4", "route", "show", "default"])
            if f"inet {address}/" in shown and stage.wifi in way:
                return
            await trio.sleep(0.05)


@attrs.frozen
class Leased:
    """By what a row has its address.

    Attributes:
      server: The DHCP server.
      client: The DHCP client.
      address: What the one gave the other.
    """

    server: LabProcess
    client: LabProcess
    address: str


async def _connect_leased(stage: Stage, start_client: Callable[[Stage], LabProcess]) -> Leased:
    """Connect from an address that DHCP gives."""
    address = _without_address(stage)
    leased = Leased(_serve_dhcp(stage, address), start_client(stage), address)
    await _has_address(stage, address)
    await stage.connect(local=address)
    return leased


@row("36", "dhclient renews", NAT, Kept(), families=(4,), programs=DHCLIENT)
async def dhclient_renews(stage: Stage) -> None:
    await _connect_leased(stage, _start_dhclient)
    await _renewed(stage)


@row("36", "dhcpcd rebinds", NAT, Kept(), families=(4,), programs=DHCPCD)
async def dhcpcd_renews(stage: Stage) -> None:
    leased = await _connect_leased(stage, _start_dhcpcd)
    leased.client.send_signal(signal.SIGHUP)  # rebind: the same request as a renewal, to everybody
    await _renewed(stage)


@row("37", "dhclient is killed and started again", NAT, Kept(), families=(4,), programs=DHCLIENT)
async def dhclient_again(stage: Stage) -> None:
    """Debian's script leaves alone what is there already."""
    leased = await _connect_leased(stage, _start_dhclient)
    leased.client.kill()
    await leased.client.wait()
    _start_dhclient(stage)
    await _renewed(stage)


@row(
    "37",
    "dhclient releases and asks again",
    NAT,
    Acquitted(Verdict.SOURCE_GONE, BY_PATH),
    families=(4,),
    programs=DHCLIENT,
)
async def dhclient_releases(stage: Stage) -> None:
    leased = await _connect_leased(stage, _start_dhclient)
    leased.client.kill()
    await leased.client.wait()
    stage.now()
    await _start_dhclient(stage, "-r").wait()
    _start_dhclient(stage)
    await _has_address(stage, leased.address)
    stage.busy_after(0.9)


async def _lease_changes(stage: Stage, leased: Leased) -> None:
    """The next renewal is refused, and another address given."""
    leased.server.kill()
    await leased.server.wait()
    stage.now()
    (stage.scratch / "leases").unlink()
    other = stage.beside(stage.wlan0, 58)
    _serve_dhcp(stage, other)
    # Said before it listens, a renewal would be repeated after some seconds only.
    await until(lambda: "sockets bound" in _log(stage).read_text().split("started")[-1], seconds=SOON)
    if "dhcpcd" in leased.client.argv:
        # dhclient renews by itself, every 2 s. A refusal is broadcast, and dhcpcd hears it when it asks everybody.
        leased.client.send_signal(signal.SIGHUP)


@row(
    "39",
    "dhclient is given another address",
    NAT,
    Closed(Verdict.SOURCE_GONE, 1),
    families=(4,),
    programs=DHCLIENT,
)
async def dhclient_changes(stage: Stage) -> None:
    await _lease_changes(stage, await _connect_leased(stage, _start_dhclient))


@row(
    "39",
    "dhcpcd is given another address",
    NAT,
    Closed(Verdict.SOURCE_GONE, 1),
    families=(4,),
    programs=DHCPCD,
)
async def dhcpcd_changes(stage: Stage) -> None:
    await _lease_changes(stage, await _connect_leased(stage, _start_dhcpcd))


# ---- router advertisements -------------------------------------------------------------------------------------


def _start_radvd(stage: Stage, router: Host, preference: str) -> LabProcess:
    """Advertise a default router; on SIGTERM radvd says lifetime 0."""
    name = router.name.replace(" ", "-")
    config = stage.scratch / f"{name}.conf"
    config.write_text(
        "interface lan0 { AdvSendAdvert on; IgnoreIfMissing on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; "
        f"AdvDefaultLifetime 1800; AdvDefaultPreference {preference}; }};\n"
    )
    command = f"radvd --nodaemon --config {config} --pidfile {stage.scratch}/{name}.pid --logmethod stderr"
    return _start(router, command.split(), stage.scratch / f"{name}.log")


async def _routers_known(stage: Stage, count: int) -> None:
    with trio.fail_after(2 * SOON):
        while len(await default_gateways(stage.device, "ra")) < count:  # noqa: ASYNC110  # asks another process
            await trio.sleep(0.05)


@row(
    "64",
    "radvd ends and says lifetime 0, a second one is there",
    ROUTED_AND_SPARE,
    Acquitted(Verdict.GATEWAY_CHANGED, BY_KEEPALIVE),
    families=(6,),
    programs=("radvd",),
)
async def radvd_ends(stage: Stage) -> None:
    stage.device.delete_route("default", via=stage.wifi)
    first = _start_radvd(stage, stage.net.wifi_router, "medium")
    assert stage.net.spare_router is not None
    _start_radvd(stage, stage.net.spare_router, "low")
    await _routers_known(stage, 2)
    await stage.connect()
    first.terminate()


@row(
    "68",
    "the only radvd ends and says lifetime 0",
    ROUTED,
    Closed(Verdict.NO_ROUTE, 1),
    families=(6,),
    programs=("radvd",),
)
async def only_radvd_ends(stage: Stage) -> None:
    stage.device.delete_route("default", via=stage.wifi)
    only = _start_radvd(stage, stage.net.wifi_router, "medium")
    await _routers_known(stage, 1)
    await stage.connect()
    only.terminate()


# ---- a routing daemon ------------------------------------------------------------------------------------------


async def _start_bird(stage: Stage, *, persist: bool) -> LabProcess:
    """Have BIRD put the server's route into the kernel."""
    channel = f"ipv{stage.family}"
    config = stage.scratch / "bird.conf"
    config.write_text(
        "router id 192.0.2.1;\nprotocol device { }\n"
        f"protocol kernel {{ {'persist;' if persist else ''} {channel} {{ import none; export all; }}; }}\n"
        f"protocol static {{ {channel}; route {stage.server}/{stage.host_length} via {stage.wifi}; }}\n"
    )
    command = f"bird -f -c {config} -s {stage.scratch}/bird.ctl -P {stage.scratch}/bird.pid"
    daemon = _start(stage.device, command.split(), stage.scratch / "bird.log")
    await _bird_route(stage)
    return daemon


async def _bird_route(stage: Stage) -> None:
    with trio.fail_after(2 * SOON):
        while stage.wifi not in await _shown(stage):  # noqa: ASYNC110  # asks another process
            await trio.sleep(0.05)


async def _shown(stage: Stage) -> str:
    return await stage.device.run(["ip", f"-{stage.family}", "route", "show", stage.server, "proto", "bird"])


async def _restart_bird(stage: Stage, *, persist: bool) -> None:
    daemon = await _start_bird(stage, persist=persist)
    stage.device.delete_route("default", via=stage.wifi)
    await stage.connect()
    daemon.terminate()
    await daemon.wait()
    assert (await _shown(stage) == "") is not persist
    await trio.sleep(1.5)
    await _start_bird(stage, persist=persist)


@row("59", "BIRD restarts", ROUTED, Acquitted(Verdict.NO_ROUTE, BY_PATH), programs=("bird",))
async def bird_restarts(stage: Stage) -> None:
    await _restart_bird(stage, persist=False)


@row("59", "BIRD restarts and leaves its routes meanwhile", ROUTED, Kept(), programs=("bird",))
async def bird_persists(stage: Stage) -> None:
    await _restart_bird(stage, persist=True)


@row("59", "BIRD ends for good", ROUTED, Closed(Verdict.NO_ROUTE, 6), programs=("bird",))
async def bird_ends(stage: Stage) -> None:
    daemon = await _start_bird(stage, persist=False)
    stage.device.delete_route("default", via=stage.wifi)
    await stage.connect()
    daemon.terminate()
