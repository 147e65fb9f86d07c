"""For tests of applications that use trio_routes, and for its own."""

from ._fake_kernel import FakeKernel as FakeKernel
from ._fake_links import FakeLink as FakeLink
from ._fake_lose import lose as lose
from ._fake_stream import FakeStream as FakeStream
from ._lab import Lab as Lab
from ._lab_host import Host as Host
from ._lab_links import Link as Link, Network as Network
from ._lab_privileges import LabUnavailable as LabUnavailable, become_lab_root as become_lab_root
from ._lab_routes import Hop as Hop, RouteType as RouteType, RuleAction as RuleAction
from ._lab_topologies import TwoUplinks as TwoUplinks
from ._processes import LabProcess as LabProcess
from ._recording import RecordingKernel as RecordingKernel, recording as recording
from ._recording_format import (
    Recording as Recording,
    RecordingError as RecordingError,
    read_recording as read_recording,
)
from ._replay import Replayed as Replayed, ReplayKernel as ReplayKernel, replay as replay
