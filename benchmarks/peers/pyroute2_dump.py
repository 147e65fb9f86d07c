"""pyroute2's route dump, as a peer of bench-cache: prints the seconds from before it until all are in a list, and the routes."""

import socket
import sys
import time
from importlib import import_module

# By name: pyroute2 has no types, and what it returns is only counted.
with import_module("pyroute2").IPRoute() as ipr:
    before = time.perf_counter()
    routes: list[object] = list(ipr.get_routes(family=socket.AF_INET6 if sys.argv[1:] == ["6"] else socket.AF_INET))
    print(f"{time.perf_counter() - before:.9f} {len(routes)}")
