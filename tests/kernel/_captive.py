"""A network with a captive portal, of real servers: nginx as portal and as endpoint, dnsmasq as resolver, HTTPS by trustme.

One gateway plays all portals at once, each on ports of its own, so that one lab and one nginx serve a whole table:

    port    answers                                          port    over TLS
    ------  -----------------------------------------------  ------  ------------------------------------
    8000    the endpoint itself: 204, /success.txt           8443    the endpoint itself, and /api
    8001    302 to a login page                              8444    the same, of an authority nobody trusts
    8002    200 and a login page                             8445    the same, with another name
    8003    511 and a login page
    8004    302, 200, and then the endpoint, as the files `stage1` and `open` appear
    9001    nothing: dropped                                 9002    nothing: refused       9003  prohibited

The resolvers are addresses of the gateway: HONEST, HIJACKING (every name leads to the gateway) and DEAD (dropped).
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from trio_routes import Endpoint, LinkHints, PortalConfig
from trio_routes.testing import Host, Lab, LabProcess, Link

SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
LENGTH = {4: 24, 6: 64}
DEVICE = {4: "10.7.0.2", 6: "2001:db8:7::2"}
GATEWAY = {4: "10.7.0.1", 6: "2001:db8:7::1"}
HONEST = {4: "10.7.0.53", 6: "2001:db8:7::53"}
HIJACKING = {4: "10.7.0.54", 6: "2001:db8:7::54"}
DEAD = {4: "10.7.0.55", 6: "2001:db8:7::55"}
CHECKED = {4: "198.18.0.7", 6: "2001:db8:18::7"}
NAME = "check.example"
LOGIN = "http://login.example/"
BODY = b"success\n"
READY_SECONDS = 10


def needs_servers(**others: str) -> pytest.MarkDecorator:
    """Skip where a server is not installed, and say which package has it; `others` are program=package."""
    packages = {"nginx": "nginx-light", "dnsmasq": "dnsmasq-base", "nft": "nftables"} | others
    missing = [package for program, package in packages.items() if shutil.which(program, path=SBIN) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@attrs.define(eq=False)
class Captive:
    """The network, as one device sees it.

    Attributes:
      device: Has wlan0, and a default route by the gateway.
      gateway: Plays the portals.
      family: The only family that the device has.
      wlan0: Its link.
      folder: nginx's document root: `stage1`, `open` and `api` appear there.
      tls: Trusts the endpoint's authority.
    """

    device: Host
    gateway: Host
    family: int
    wlan0: Link
    folder: Path
    tls: ssl.SSLContext

    def config(
        self,
        http: int = 8000,
        https: int = 8443,
        *,
        resolver: dict[int, str] | None = HONEST,
        api_url: str | None = None,
        endpoints: Sequence[Endpoint] | None = None,
        on_demand: bool = True,
    ) -> PortalConfig:
        """Ask for a 204 and a body at one port, and a 204 over TLS at another, by name."""
        asked = endpoints or (
            Endpoint(f"http://{NAME}:{http}/generate_204"),
            Endpoint(f"http://{NAME}:{http}/success.txt", body=BODY),
            Endpoint(f"https://{NAME}:{https}/generate_204"),
        )
        hints = LinkHints(api_url=api_url, resolvers=[] if resolver is None else [resolver[self.family]])
        return PortalConfig(endpoints=asked, hints={"wlan0": hints}, tls=self.tls, on_demand=on_demand)


@asynccontextmanager
async def captive(lab: Lab, family: int, folder: Path) -> AsyncGenerator[Captive]:
    """Build the network; its servers listen when the body begins."""
    device, gateway, wifi = lab.host("device"), lab.host("gateway"), lab.network("wifi")
    length = LENGTH[family]
    wlan0 = device.plug(wifi, name="wlan0", addresses=[f"{DEVICE[family]}/{length}"])
    own = [f"{address[family]}/{length}" for address in (GATEWAY, HONEST, HIJACKING, DEAD)]
    gateway.plug(wifi, name="lan0", addresses=own)
    gateway.plug(lab.network("core"), name="core0", addresses=[f"{CHECKED[family]}/{length}"])
    device.add_route("default", via=GATEWAY[family])
    await _drop(gateway, family)
    tls = _write_certificates(folder)
    root = folder / "root"
    root.mkdir()
    nginx = _start_nginx(gateway, folder, root)
    honest = _start_dnsmasq(gateway, HONEST[family], f"/{NAME}/{CHECKED[family]}")
    hijacking = _start_dnsmasq(gateway, HIJACKING[family], f"/#/{GATEWAY[family]}")
    with trio.fail_after(READY_SECONDS):
        for process in (honest, hijacking):
            await _read_until(process, b"started")
        await _listens(device, nginx, CHECKED[family], 8445)
    yield Captive(device, gateway, family, wlan0, root, tls)


async def _drop(gateway: Host, family: int) -> None:
    rules = f"""table inet portals {{
        chain incoming {{
            type filter hook input priority 0;
            tcp dport 9001 drop
            tcp dport 9003 reject with icmpx admin-prohibited
            {"ip" if family == 4 else "ip6"} daddr {DEAD[family]} drop
        }}
    }}"""
    await gateway.run(["nft", "-f", "-"], stdin=rules.encode())


def _write_certificates(folder: Path) -> ssl.SSLContext:
    ours, foreign = trustme.CA(), trustme.CA()
    for name, certificate in {
        "ours": ours.issue_cert(NAME, CHECKED[4], CHECKED[6]),
        "foreign": foreign.issue_cert(NAME),
        "other": ours.issue_cert("other.example"),
    }.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    authority = folder / "ca.pem"
    ours.cert_pem.write_to_path(str(authority))
    return ssl.create_default_context(cafile=str(authority))


_ENDPOINT = """
    location = /success.txt { default_type text/plain; return 200 "success\\n"; }
    location = /api { default_type application/captive+json; try_files /api =404; }
    location / { return 204; }
"""


def _start_nginx(gateway: Host, folder: Path, root: Path) -> LabProcess:
    def server(port: int, body: str, certificate: str = "") -> str:
        tls = f"ssl_certificate {folder}/{certificate}.pem; ssl_certificate_key {folder}/{certificate}.pem;"
        listen = f"listen {port}{' ssl' if certificate else ''}; listen [::]:{port}{' ssl' if certificate else ''};"
        return f"server {{ {listen} {tls if certificate else ''} root {root}; {body} }}\n"

    stages = f"""location / {{
        if (-f {root}/open) {{ rewrite ^ /through last; }}
        if (-f {root}/stage1) {{ return 200 "accept our terms"; }}
        return 302 {LOGIN};
    }}
    location = /through {{ if ($request_uri = /success.txt) {{ return 200 "success\\n"; }} return 204; }}"""
    servers = "".join(
        [
            server(8000, _ENDPOINT),
            server(8001, f"return 302 {LOGIN};"),
            server(8002, 'default_type text/html; return 200 "<html>log in</html>";'),
            server(
                8003,
                'error_page 511 = @login; location / { return 511 "<html>log in</html>"; } location @login { return 511; }',
            ),
            server(8004, stages),
            server(8443, _ENDPOINT, "ours"),
            server(8444, _ENDPOINT, "foreign"),
            server(8445, _ENDPOINT, "other"),
            server(80, 'return 200 "<html>log in</html>";'),
        ]
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"user root; pid {folder}/nginx.pid; daemon off; master_process off; error_log stderr crit;"
        f"events {{}} http {{ access_log off; {temporary} {servers} }}"
    )
    program = shutil.which("nginx", path=SBIN)
    assert program is not None
    return gateway.start([program, "-e", "stderr", "-c", path])


def _start_dnsmasq(gateway: Host, address: str, answer: str) -> LabProcess:
    program = shutil.which("dnsmasq", path=SBIN)
    assert program is not None
    return gateway.start(
        [
            program,
            "--no-daemon",  # stays who it is: in a user namespace it may not become anybody else
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            f"--listen-address={address}",
            "--except-interface=lo",
            f"--address={answer}",
        ],
        stderr=subprocess.PIPE,
    )


def start_radvd(gateway: Host, folder: Path, resolvers: dict[str, int]) -> LabProcess:
    """Advertise resolvers on lan0, each with a lifetime, as no default router; three times a second.

    Version 2.19 (Debian 12) does not know option 37: `captive_portal_option` is for that.
    """
    program = shutil.which("radvd", path=SBIN)
    assert program is not None
    told = " ".join(f"RDNSS {address} {{ AdvRDNSSLifetime {seconds}; }};" for address, seconds in resolvers.items())
    path = folder / "radvd.conf"
    path.write_text(
        "interface lan0 { AdvSendAdvert on; AdvDefaultLifetime 0; AdvIntervalOpt on;"
        f" MinDelayBetweenRAs 0.1; MinRtrAdvInterval 0.2; MaxRtrAdvInterval 0.4; {told} }};"
    )
    path.chmod(0o600)
    words = [program, "--nodaemon", "--config", str(path), "--pidfile", str(folder / "radvd.pid")]
    return gateway.start([*words, "--logmethod", "none"])


async def _read_until(process: LabProcess, word: bytes) -> None:
    assert process.stderr is not None
    said = bytearray()
    while word not in said:
        data = await process.stderr.receive_some()
        assert data, f"{process} ended, having said {bytes(said)!r}"
        said += data


async def _listens(host: Host, process: LabProcess, address: str, port: int) -> None:
    """Wait until a server accepts connections: it says nowhere that it does."""
    while True:
        try:
            stream = await host.open_tcp_stream(address, port)
        except ConnectionRefusedError:
            await trio.sleep(0.01)
        else:
            await trio.aclose_forcefully(stream)
            return


def advertisement(*options: bytes, lifetime: int = 1800) -> bytes:
    """A router advertisement; the kernel fills in its checksum."""
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0) + b"".join(options)


def captive_portal_option(url: str) -> bytes:
    """Option 37 (RFC 8910 §2.3)."""
    length = (len(url) + 9) // 8
    return bytes([37, length]) + url.encode().ljust(length * 8 - 2, b"\0")


def resolver_option(address: str, lifetime: int = 600) -> bytes:
    """Option 25 (RFC 8106 §5.1)."""
    return bytes([25, 3]) + struct.pack("!HI", 0, lifetime) + socket.inet_pton(socket.AF_INET6, address)


@asynccontextmanager
async def advertising(gateway: Host, link: Link) -> AsyncGenerator[trio.socket.SocketType]:
    """A socket that sends advertisements to all nodes of a link, from fe80::1."""
    link.add_address("fe80::1/64")
    with gateway.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode() + b"\0")
        await sock.bind(("fe80::1", 0, 0, link.ifindex))
        await sock.connect(("ff02::1", 0, 0, link.ifindex))
        yield sock
