"""The documents: their code runs, the names in them exist, and their links lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import trio

import trio_routes
import trio_routes.integrations
from trio_routes import testing
from trio_routes.cli._status import ExitStatus

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path for folder in ("trio_routes", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
]

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def code_of(document: Path) -> list[str]:
    """All code in a document: its blocks, and what stands between backticks elsewhere."""
    text = document.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))]


def python_block(document: Path) -> str:
    """The document's only block of Python."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


@pytest.mark.slow  # the default policy waits a second before it closes
async def test_the_readme_example_runs_and_says_what_it_lost(lab: testing.Lab, nursery: trio.Nursery) -> None:
    net = lab.two_uplinks(nat=True)
    visits: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream) -> None:
        visits.append(stream)
        # Read in any case: closing a socket with unread data resets the connection.
        data = await stream.receive_some()
        if len(visits) > 1:
            await stream.send_all(b"again")  # and then an end-of-file, which ends the client
            return
        await stream.send_all(data)
        net.device.delete_route("default", via=net.wifi_gateways[4])
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass  # reset by the client's kernel, or never heard of again

    nursery.start_soon(trio.serve_listeners, serve, net.server.listen(7))
    example = net.device.start([sys.executable, "-u", "-c", python_block(ROOT / "README.md")], stdout=subprocess.PIPE)
    assert example.stdout is not None
    output = b""
    without_route = True
    with trio.fail_after(20):
        async for data in example.stdout:
            output += data
            if without_route and b"lost" in output:
                without_route = False
                net.device.add_route("default", via=net.lte_gateways[4])
        status = await example.wait()
    assert status == 0
    lines = output.decode().splitlines()
    assert len(lines) == 3, lines
    received, lost, again = lines
    assert received == r"received b'hello\n'"
    assert lost.startswith("lost tcp 10.0.1.2:")
    assert "no route" in lost
    assert again == "received b'again'"


@each_document
async def test_every_public_name_in_a_document_exists(document: Path) -> None:
    async with trio_routes.open_pt(kernel=testing.FakeKernel()) as pt:
        roots: dict[str, object] = {"pt": pt, "trio_routes": trio_routes}
        for code in code_of(document):
            for root, names in re.findall(r"(?<![\w./])(pt|trio_routes)((?:\.[A-Za-z]\w*)+)", code):
                found = roots[root]
                for name in names[1:].split("."):
                    if isinstance(found, types.ModuleType) and found is trio_routes.integrations:
                        importlib.import_module(f"{found.__name__}.{name}")  # each adapter is imported by itself
                    assert hasattr(found, name), f"{root}{names}, in {code!r}"
                    found = getattr(found, name)


@each_document
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    for code in code_of(document):
        for path in re.findall(r"(?<![\w/])(?:trio_routes|tests|docs|examples|benchmarks)/[\w/.]*", code):
            assert (ROOT / path.rstrip(".")).exists(), f"{path}, in {code!r}"


@each_document
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target.split("#")[0]).exists(), target


def test_every_document_that_the_code_cites_exists() -> None:
    cited = {name for path in SOURCES for name in re.findall(r"\bdocs/[\w.]+\.md", path.read_text())}
    assert cited
    assert [name for name in sorted(cited) if not (ROOT / name).exists()] == []


def test_the_design_names_every_module_of_the_package_once() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    tree = text[text.index("```\ntrio_routes/") :]
    tree = tree[: tree.index("\n```\n", 4)]
    # A line is names, two spaces or more between them, and after the last of them what they are for.
    named: list[str] = []
    folder = ""
    for line in tree.splitlines()[2:]:
        if heading := re.match(r"  (\w+)/", line):
            folder = f"{heading[1]}/"
            continue
        if not line.startswith("    "):
            folder = ""
        for word in line.split():
            if not word.startswith("_"):
                break
            named.append(f"{folder}{word}.py")
    modules = [
        str(path.relative_to(ROOT / "trio_routes"))
        for path in (ROOT / "trio_routes").rglob("_*.py")
        if not path.name.startswith("__")
    ]
    assert len(named) == len(set(named))
    assert set(modules) - set(named) == set(), "docs/design.md lists the modules: these are not in it"
    assert set(named) - set(modules) == set(), "docs/design.md lists the modules: these are not there"


def test_the_readme_lists_the_exit_statuses_of_the_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [
        status.value for status in ExitStatus
    ]
