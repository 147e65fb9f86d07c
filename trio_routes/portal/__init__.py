"""Captive-portal detection: is the Internet behind each link, a login page, or nothing?"""

from ._answer import CHALLENGE as CHALLENGE, RESPONSE as RESPONSE, expected_response as expected_response
from ._capport import Capport as Capport
from ._config import (
    Endpoint as Endpoint,
    LinkHints as LinkHints,
    PortalConfig as PortalConfig,
    PortalProbe as PortalProbe,
)
from ._detector import Detector as Detector
from ._evidence import Evidence as Evidence, Finding as Finding, Question as Question
from ._rules import PortalKind as PortalKind, PortalState as PortalState
from ._serve import serve_endpoint as serve_endpoint
from ._view import LinkPortal as LinkPortal, PortalView as PortalView
from ._way import Addresses as Addresses, Way as Way
