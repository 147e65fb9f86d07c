"""Ready-made networks.

``two_uplinks()``, addresses of IPv4 and the last part of IPv6 (2001:db8::/32, the documentation prefix)::

                      wlan0 .2 ── wifi 10.0.1.0/24 ───── .1 [wifi router] .1 ──┐
              [device]                                .254 [spare router] .3 ──┤
                      wwan0 .2 ── lte  10.0.2.0/24 ───── .1 [lte router]  .2 ──┼── core 198.51.100.0/24 ── .7 [server]
                      eth0  .2 ── wired 192.168.7.0/24 ─ .9 [neighbour]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from ._lab_host import Host
from ._lab_links import Link, Network
from ._lab_routes import Family

_FAMILIES: tuple[Family, ...] = (4, 6)

# Prefix without its last part, and prefix length.
_WIFI = {4: "10.0.1.", 6: "2001:db8:1::"}
_LTE = {4: "10.0.2.", 6: "2001:db8:2::"}
_WIRED = {4: "192.168.7.", 6: "2001:db8:7::"}
_CORE = {4: "198.51.100.", 6: "2001:db8:f::"}
_LENGTH = {4: 24, 6: 64}

_WIFI_METRIC = 100


class _Builder(Protocol):
    """What is needed of the lab."""

    def host(self, name: str) -> Host: ...

    def network(self, name: str) -> Network: ...


@attrs.frozen
class TwoUplinks:
    """A device with two uplinks; the default routes are by Wi-Fi, with metric 100.

    The mappings have the family (4, 6) as key.

    Attributes:
      device: The host under test.
      wifi_router: Routes (and with NAT masquerades) what the device sends by ``wlan0``.
      lte_router: Likewise for ``wwan0``.
      spare_router: A second router on the Wi-Fi, or None.
      server: Behind all routers.
      neighbour: On the device's wired link; no router.
      wlan0: The device's link to the Wi-Fi.
      wwan0: The device's link to LTE.
      eth0: The device's link to the neighbour.
      wifi_gateways: The Wi-Fi router's addresses on the device's side.
      lte_gateways: The LTE router's.
      spare_gateways: The spare router's; empty without one.
      wlan0_addresses: The device's addresses on ``wlan0``.
      wwan0_addresses: Those on ``wwan0``.
      eth0_addresses: Those on ``eth0``.
      server_addresses: The server's.
      neighbour_addresses: The neighbour's.
    """

    device: Host
    wifi_router: Host
    lte_router: Host
    spare_router: Host | None
    server: Host
    neighbour: Host
    wlan0: Link
    wwan0: Link
    eth0: Link
    wifi_gateways: Mapping[int, str]
    lte_gateways: Mapping[int, str]
    spare_gateways: Mapping[int, str]
    wlan0_addresses: Mapping[int, str]
    wwan0_addresses: Mapping[int, str]
    eth0_addresses: Mapping[int, str]
    server_addresses: Mapping[int, str]
    neighbour_addresses: Mapping[int, str]


def two_uplinks(lab: _Builder, *, nat: bool, lte_metric: int | None, spare_gateway: bool) -> TwoUplinks:
    """Build it in ``lab``; see ``Lab.two_uplinks()``."""
    device, server, neighbour = lab.host("device"), lab.host("server"), lab.host("neighbour")
    wifi, lte, wired, core = (lab.network(name) for name in ("wifi", "lte", "wired", "core"))
    wlan0 = _plug(device, wifi, "wlan0", _WIFI, "2")
    wwan0 = _plug(device, lte, "wwan0", _LTE, "2")
    eth0 = _plug(device, wired, "eth0", _WIRED, "2")
    _plug(neighbour, wired, "eth0", _WIRED, "9")
    _plug(server, core, "eth0", _CORE, "7")
    wifi_router = _router(lab, "wifi router", wifi, core, prefix=_WIFI, at="1", core_at="1", nat=nat)
    lte_router = _router(lab, "lte router", lte, core, prefix=_LTE, at="1", core_at="2", nat=nat)
    spare_router = None
    if spare_gateway:
        spare_router = _router(lab, "spare router", wifi, core, prefix=_WIFI, at="fe", core_at="3", nat=nat)
    if not nat:
        _add_routes_back(server, lte_router, wifi_router, spare_router)
    for family in _FAMILIES:
        device.add_route("default", via=_address(_WIFI, family, "1"), metric=_WIFI_METRIC)
        if lte_metric is not None:
            device.add_route("default", via=_address(_LTE, family, "1"), metric=lte_metric)
    return TwoUplinks(
        device=device,
        wifi_router=wifi_router,
        lte_router=lte_router,
        spare_router=spare_router,
        server=server,
        neighbour=neighbour,
        wlan0=wlan0,
        wwan0=wwan0,
        eth0=eth0,
        wifi_gateways=_addresses(_WIFI, "1"),
        lte_gateways=_addresses(_LTE, "1"),
        spare_gateways=_addresses(_WIFI, "fe") if spare_gateway else {},
        wlan0_addresses=_addresses(_WIFI, "2"),
        wwan0_addresses=_addresses(_LTE, "2"),
        eth0_addresses=_addresses(_WIRED, "2"),
        server_addresses=_addresses(_CORE, "7"),
        neighbour_addresses=_addresses(_WIRED, "9"),
    )


def _router(
    lab: _Builder,
    name: str,
    lan: Network,
    core: Network,
    *,
    prefix: Mapping[int, str],
    at: str,
    core_at: str,
    nat: bool,
) -> Host:
    router = lab.host(name)
    router.forward()
    _plug(router, lan, "lan0", prefix, at)
    uplink = _plug(router, core, "core0", _CORE, core_at)
    if nat:
        router.masquerade(uplink)
    return router


def _add_routes_back(server: Host, lte_router: Host, wifi_router: Host, spare_router: Host | None) -> None:
    behind_wifi = [server, lte_router]
    behind_lte = [host for host in (server, wifi_router, spare_router) if host is not None]
    for family in _FAMILIES:
        for host in behind_wifi:
            host.add_route(f"{_WIFI[family]}{_zero(family)}/{_LENGTH[family]}", via=_address(_CORE, family, "1"))
        for host in behind_lte:
            host.add_route(f"{_LTE[family]}{_zero(family)}/{_LENGTH[family]}", via=_address(_CORE, family, "2"))


def _zero(family: int) -> str:
    return "0" if family == 4 else ""


def _plug(host: Host, network: Network, name: str, prefix: Mapping[int, str], last: str) -> Link:
    addresses = [f"{_address(prefix, family, last)}/{_LENGTH[family]}" for family in _FAMILIES]
    return host.plug(network, name=name, addresses=addresses)


def _address(prefix: Mapping[int, str], family: int, last: str) -> str:
    # "fe" is 254 in both families
    return prefix[family] + (last if family == 6 else str(int(last, 16)))


def _addresses(prefix: Mapping[int, str], last: str) -> dict[int, str]:
    return {family: _address(prefix, family, last) for family in _FAMILIES}
