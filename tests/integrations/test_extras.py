"""The adapters as packages: nothing is imported unasked, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = {
    "anyio": "anyio",
    "httpcore": "httpx",
    "httpcore2": "httpx2",
    "httpx": "httpx",
    "httpx2": "httpx2",
    "hypercorn": "hypercorn",
    "trio_websocket": "trio-websocket",
    "websockets": "websockets",
}


def python(code: str) -> list[str]:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout.splitlines()


def test_importing_trio_routes_imports_none_of_the_libraries() -> None:
    code = f"import sys, trio_routes, trio_routes.integrations; print(*sys.modules.keys() & {set(EXTRAS)})"
    assert python(code) == [""]


def test_a_library_that_is_missing_or_too_old_is_an_import_error_that_names_the_extra() -> None:
    # None in sys.modules is Python's own for "not there". In one process, because each would take half a second.
    code = f"""
import importlib, sys
for library in [*{list(EXTRAS)}, "websockets.trio"]:
    sys.modules[library] = None
    try:
        importlib.import_module("trio_routes.integrations." + library.partition(".")[0])
    except ImportError as error:
        print(error)
    for name in [name for name in sys.modules if name.startswith("trio_routes.integrations.")]:
        del sys.modules[name]
    del sys.modules[library]
"""
    complaints = python(code)
    assert len(complaints) == len(EXTRAS) + 1
    for complaint, extra in zip(complaints, [*EXTRAS.values(), "websockets"], strict=True):
        assert f"pip install 'trio-routes[{extra}]'" in complaint
