"""Connections: what decides their paths, what a change does to them, and what is done about it."""

from ._connection import Connection as Connection, Loss as Loss
from ._flow import Abortable as Abortable, Flow as Flow, flow_of as flow_of, socket_of as socket_of
from ._policy import Policy as Policy, Probe as Probe
from ._reassess import Reassessor as Reassessor
from ._registry import Registry as Registry, RegistryStatistics as RegistryStatistics
from ._verdict import Standing as Standing, Verdict as Verdict, VerdictClass as VerdictClass
