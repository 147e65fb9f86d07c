"""Captive-portal detection: is the Internet behind the gateway, a login page, or nothing?"""

from ._config import Endpoint as Endpoint, PortalConfig as PortalConfig
from ._detector import Detector as Detector
from ._evidence import Evidence as Evidence, Trouble as Trouble
from ._rules import PortalKind as PortalKind, PortalState as PortalState
from ._view import PortalView as PortalView
