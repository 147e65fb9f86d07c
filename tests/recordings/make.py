"""Make the recordings: network software at work, in namespaces, as a pt sees it.

Run by hand, from the root, as root: python -m tests.recordings.make [NAME ...]

It takes about a minute and needs, of Debian: dnsmasq, isc-dhcp-client, dhcpcd-base, radvd, iproute2. For each scene it
writes NAME.trec and NAME.json. The latter has what the pt published while it was recorded, and what ip(8) printed at the
recording's end: neither comes from a replay. Read both before you commit them: they are what the tests hold replays to.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import trio

from tests.recordings.facts import COMMANDS, event_lines, our_tables, their_tables
from trio_routes import Pt, open_pt, testing
from trio_routes.netlink import LinuxKernel, LinuxNetlinkSocket

HERE: Final = Path(__file__).parent
_EVENTS: Final = 100_000
# Seconds in which all that a change brings has been announced; the kernel tells of a carrier up to one second late.
_CALM: Final = 1.2
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000


class Stage:
    """One scene's lab, files and recording; `at_end` is left before the lab is."""

    def __init__(self, name: str, story: str, lab: testing.Lab, files: Path) -> None:
        self.lab = lab
        self.files = files
        self.at_end = ExitStack()
        self._name = name
        self._story = story

    @asynccontextmanager
    async def recorded(self, host: testing.Host, kernel: LinuxKernel | None = None) -> AsyncGenerator[Pt]:
        """Record what a pt in `host` needs while the block's body runs, and write both files."""
        with ExitStack() as outer, closing(LinuxKernel(host.netns)) as linux:
            path = HERE / f"{self._name}.trec"
            recorder = outer.enter_context(testing.recording(kernel or linux, path, overwrite=True))
            async with open_pt(kernel=recorder) as pt:
                published = outer.enter_context(pt.subscribe(buffer=_EVENTS))
                yield pt
                await trio.sleep(_CALM)
                printed = {name: json.loads(await host.run(words)) for name, words in COMMANDS.items()}
                routes = pt.routes
            events = [event async for event in published]
        ours, theirs = our_tables(routes), their_tables(printed)
        for name, lines in theirs.items():
            for line in sorted(set(lines) ^ set(ours[name])):
                print(f"{self._name}: the pt did not follow: {'it lacks' if line in lines else 'it has'} {line}")
        self._write(event_lines(events, routes), printed)

    def _write(self, events: list[str], printed: dict[str, list[object]]) -> None:
        parts: dict[str, Sequence[object]] = {"events": events, **printed}
        fields = [f'"story": {json.dumps(self._story)}']
        fields += [f'"{name}": [\n  ' + ",\n  ".join(map(json.dumps, part)) + "\n]" for name, part in parts.items()]
        (HERE / f"{self._name}.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")

    def start_dnsmasq(self, router: testing.Host, first: int, last: int) -> testing.LabProcess:
        """Serve addresses from 192.0.2.`first` to 192.0.2.`last`."""
        words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"]
        words += ["--dhcp-authoritative", f"--dhcp-range=192.0.2.{first},192.0.2.{last},255.255.255.0,120"]
        words += [
            "--dhcp-option=3,192.0.2.1",
            f"--dhcp-leasefile={self.files}/{first}.leases",
            "--pid-file=",
            "--log-facility=-",
            "--quiet-dhcp",
        ]
        return router.start(words)

    def start_privately(self, host: testing.Host, command: str) -> testing.LabProcess:
        """Start a program that changes /etc and keeps files in /run and /var, with copies of its own."""
        shutil.copytree("/etc", self.files / "etc", symlinks=True, ignore_dangling_symlinks=True)
        mounts = f"mount --make-rprivate /; mount --bind {self.files}/etc /etc"
        mounts += "; mount -t tmpfs none /run; mount -t tmpfs none /var/lib"
        return host.start(["unshare", "--mount", "--uts", "sh", "-ec", f"{mounts}; exec {command}"])


Play: TypeAlias = Callable[[Stage], Awaitable[None]]


def dhcp_network(stage: Stage) -> tuple[testing.Host, testing.Host]:
    """A device without an address, and a router."""
    wifi = stage.lab.network("wifi")
    router, device = stage.lab.host("router"), stage.lab.host("device")
    router.plug(wifi, name="lan0", addresses=["192.0.2.1/24"])
    device.plug(wifi, name="wlan0")
    return router, device


async def dhclient(stage: Stage) -> None:
    """ISC dhclient takes a lease, renews it twice, is told by a new server that it is void, and takes another."""
    router, device = dhcp_network(stage)
    server = stage.start_dnsmasq(router, 50, 59)
    conf = stage.files / "dhclient.conf"
    conf.write_text(
        "initial-interval 1;\ntimeout 10;\nrequest subnet-mask, routers;\n"
        "supersede dhcp-renewal-time 3;\nsupersede dhcp-rebinding-time 20;\n"
    )
    files = f"-cf {conf} -lf {stage.files}/dhclient.leases -pf {stage.files}/dhclient.pid"
    async with stage.recorded(device):
        stage.start_privately(device, f"dhclient -4 -d {files} wlan0")
        await trio.sleep(9)
        await restart_dnsmasq(stage, router, server)
        await trio.sleep(12)


async def dhcpcd(stage: Stage) -> None:
    """dhcpcd, which sets routes itself, takes a lease; its cable is pulled, and comes back to another server."""
    router, device = dhcp_network(stage)
    server = stage.start_dnsmasq(router, 50, 59)
    conf = stage.files / "dhcpcd.conf"
    conf.write_text("noipv6\nnoipv4ll\nnoarp\nnohook resolv.conf, hostname, timesyncd, ntp\noption routers\n")
    async with stage.recorded(device):
        stage.start_privately(device, f"dhcpcd --ipv4only --nobackground --config {conf} wlan0")
        await trio.sleep(4)
        device.links["wlan0"].carrier(False)
        await restart_dnsmasq(stage, router, server)
        await trio.sleep(2)
        device.links["wlan0"].carrier(True)
        await trio.sleep(10)


async def restart_dnsmasq(stage: Stage, router: testing.Host, server: testing.LabProcess) -> None:
    """Put a server with other addresses in the place of one."""
    server.kill()
    await server.wait()
    stage.start_dnsmasq(router, 150, 159)


async def containers(stage: Stage) -> None:
    """Eight containers come to a bridge and go again, as Docker makes them: a veth each, moved and renamed."""
    device = stage.lab.host("device")
    device.plug(stage.lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24", "2001:db8:1::2/64"])
    for gateway in ("192.0.2.1", "2001:db8:1::1"):
        device.add_route("default", via=gateway)
    bridge = "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up"
    await device.run(["sh", "-ec", bridge])
    inside = [stage.lab.host(f"container{number}") for number in range(8)]
    async with stage.recorded(device):
        for number, container in enumerate(inside):
            made = [
                f"ip link add veth{number} type veth peer name tmp{number}",
                f"ip link set veth{number} master docker0",
                f"ip link set tmp{number} netns /proc/{os.getpid()}/fd/{container.netns}",
                f"ip link set veth{number} up",
            ]
            await device.run(["sh", "-ec", "; ".join(made)])
            started = (
                f"ip link set tmp{number} name eth0; ip link set eth0 up; ip addr add 172.17.0.{number + 2}/16 dev eth0"
            )
            await container.run(["sh", "-ec", f"{started}; ip route add default via 172.17.0.1"])
        await trio.sleep(_CALM)
        for number, container in enumerate(inside):
            if number % 2:
                await device.run(["ip", "link", "del", f"veth{number}"])
            else:
                await container.run(["ip", "link", "del", "eth0"])


_RADVD: Final = """
interface lan0 {
  AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime 60;
  prefix %s { AdvOnLink on; AdvAutonomous on; AdvValidLifetime 8; AdvPreferredLifetime 6; DeprecatePrefix on; };
};
"""


def start_radvd(stage: Stage, router: testing.Host, name: str, prefix: str) -> testing.LabProcess:
    """Advertise a prefix."""
    conf = stage.files / name
    conf.write_text(_RADVD % prefix)
    files = ["--config", str(conf), "--pidfile", f"{conf}.pid"]
    return router.start(["radvd", "--nodaemon", "--logmethod", "stderr", *files])


async def advertisements(stage: Stage) -> None:
    """The router advertises a prefix, restarts, and advertises another; the device's kernel does the rest."""
    wifi = stage.lab.network("wifi")
    router, device = stage.lab.host("router"), stage.lab.host("device")
    router.forward()
    router.plug(wifi, name="lan0", addresses=["2001:db8:1::1/64", "2001:db8:2::1/64"])
    wlan0 = device.plug(wifi, name="wlan0")
    # The lab's hosts are deaf to prefixes otherwise.
    for setting in ("autoconf", "accept_ra"):
        device.sysctl(f"net.ipv6.conf.{wlan0.name}.{setting}", 1)
    async with stage.recorded(device):
        first = start_radvd(stage, router, "first", "2001:db8:1::/64")
        await trio.sleep(5)
        first.terminate()
        await first.wait()
        await trio.sleep(1)
        start_radvd(stage, router, "second", "2001:db8:2::/64")
        # The old prefix's address goes after 8 s. Its route is listed until the kernel next tidies up, every 30 s
        # (net.ipv6.route.gc_interval).
        await trio.sleep(45)


async def vpn(stage: Stage) -> None:
    """A VPN as wg-quick sets it up and takes it down: all that has not its mark goes by a table of its own."""
    device = stage.lab.host("device")
    device.plug(stage.lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24", "2001:db8:1::2/64"])
    for gateway in ("192.0.2.1", "2001:db8:1::1"):
        device.add_route("default", via=gateway)
    up = [
        "ip -4 address add 10.64.0.2/32 dev wg0",
        "ip -6 address add fd00:64::2/128 dev wg0",
        "ip link set mtu 1420 up dev wg0",
    ]
    down: list[str] = []
    for version, everything in ((6, "::/0"), (4, "0.0.0.0/0")):
        ip = f"ip -{version}"
        up += [
            f"{ip} rule add not fwmark 51820 table 51820",
            f"{ip} rule add table main suppress_prefixlength 0",
            f"{ip} route add {everything} dev wg0 table 51820",
        ]
        down += [f"{ip} rule delete table 51820", f"{ip} rule delete table main suppress_prefixlength 0"]
    down += ["ip link delete dev wg0"]
    async with stage.recorded(device):
        with tunnel(device):
            for command in up:
                await device.run(command.split())
            await trio.sleep(1)
            for command in down:
                await device.run(command.split())
        await trio.sleep(0.5)
        stage.at_end.enter_context(tunnel(device))
        for command in up:
            await device.run(command.split())


@contextmanager
def tunnel(host: testing.Host) -> Generator[None]:
    """Be the program that a link wg0 belongs to: without one it has no carrier. There may be no WireGuard."""
    with host.entered():
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"wg0", _IFF_TUN | _IFF_NO_PI))
        yield
    finally:
        os.close(descriptor)


async def carrier(stage: Stage) -> None:
    """A cable with two default routes' better one is pulled three times; then its link is set down and up again."""
    device = stage.lab.host("device")
    eth0 = device.plug(stage.lab.network("wired"), name="eth0", addresses=["192.0.2.2/24", "2001:db8:1::2/64"])
    device.plug(stage.lab.network("wifi"), name="wlan0", addresses=["198.51.100.2/24", "2001:db8:2::2/64"])
    for gateway, metric in (("192.0.2.1", 100), ("2001:db8:1::1", 100), ("198.51.100.1", 600), ("2001:db8:2::1", 600)):
        device.add_route("default", via=gateway, metric=metric)
    device.sysctl("net.ipv4.conf.eth0.ignore_routes_with_linkdown", 1)
    async with stage.recorded(device):
        for _ in range(3):
            for on in (False, True):
                eth0.carrier(on)
                await trio.sleep(_CALM)
        eth0.down()
        await trio.sleep(0.5)
        eth0.up()
        eth0.add_address("2001:db8:1::2/64")
        device.add_route("default", via="192.0.2.1", metric=100)


class SmallBuffers(LinuxKernel):
    """A kernel whose netlink sockets hold some twenty notifications."""

    def open_netlink(self) -> LinuxNetlinkSocket:
        netlink = super().open_netlink()
        with socket.socket(fileno=os.dup(netlink.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        return netlink


async def overrun(stage: Stage) -> None:
    """Three hundred routes come, and half of them go, while the reader does not read and has a small buffer: ENOBUFS."""
    device = stage.lab.host("device")
    device.plug(stage.lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24"])
    device.add_route("default", via="192.0.2.1")
    with closing(SmallBuffers(device.netns)) as kernel:
        async with stage.recorded(device, kernel):
            # Each of these blocks the loop, and so the pt.
            for number in range(300):
                device.add_route(f"10.0.{number % 256}.{number // 256}/32", via="192.0.2.1")
            for number in range(0, 300, 2):
                device.delete_route(f"10.0.{number % 256}.{number // 256}/32", via="192.0.2.1")
            device.delete_route("default", via="192.0.2.1")
            await trio.sleep(2)
            device.add_route("default", via="192.0.2.254")


SCENES: Final[tuple[Play, ...]] = (dhclient, dhcpcd, containers, advertisements, vpn, carrier, overrun)


async def make(play: Play) -> None:
    """Play one scene."""
    name = getattr(play, "__name__", "")
    story = (play.__doc__ or "").strip()
    with tempfile.TemporaryDirectory() as files:
        async with testing.Lab() as lab:
            stage = Stage(name, story, lab, Path(files))
            with stage.at_end:
                await play(stage)
    print(f"{name}: {(HERE / f'{name}.trec').stat().st_size} bytes")


def main() -> None:
    """Make the scenes that the arguments name, or all."""
    wanted = sys.argv[1:]
    for play in SCENES:
        if not wanted or getattr(play, "__name__", "") in wanted:
            trio.run(make, play)


if __name__ == "__main__":
    main()
