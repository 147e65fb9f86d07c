"""Whom to ask what is behind a link: arguments that several commands take."""

from __future__ import annotations

import argparse
import ssl

import attrs

from ..portal import Endpoint, PortalConfig
from ._arguments import CommandFailedError, UsageError


def add_endpoints(parser: argparse.ArgumentParser) -> None:
    """Add ``--endpoint``, ``--challenge`` and ``--ca``, which `portal_config` reads."""
    parser.add_argument(
        "--endpoint",
        dest="endpoints",
        action="append",
        type=_endpoint,
        metavar="URL",
        help="ask this one, whose own server answers 204 (http: or https:), in place of the default ones; up to five",
    )
    parser.add_argument(
        "--challenge", action="store_true", help="the endpoints given are of `trio-routes portal serve`"
    )
    parser.add_argument("--ca", metavar="FILE", help="the authorities (PEM) that vouch for https: endpoints and APIs")


def _endpoint(url: str) -> Endpoint:
    try:
        return Endpoint(url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def portal_config(arguments: argparse.Namespace, *, on_demand: bool) -> PortalConfig:
    """Whom to ask.

    Raises:
      UsageError: The arguments do not go together.
      CommandFailedError: The authorities cannot be read.
    """
    config = PortalConfig(on_demand=on_demand)
    if arguments.ca is not None:
        config = attrs.evolve(config, tls=_tls(arguments.ca))
    if arguments.endpoints:
        try:
            given = [attrs.evolve(endpoint, challenge=arguments.challenge) for endpoint in arguments.endpoints]
            config = attrs.evolve(config, endpoints=given)
        except ValueError as error:
            raise UsageError(str(error)) from None
    elif arguments.challenge:
        raise UsageError("--challenge says something of endpoints given by --endpoint, and there is none")
    return config


def _tls(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one; neither names the file
        raise CommandFailedError(f"{authorities}: {error.strerror or error}") from None
