"""Getting the lab's rights, and the reasons when they are refused.

Each test runs a program of its own without any capability: rights once got cannot be given back. The program is an
unprivileged user of a user namespace, not of the machine, which works the same whoever runs the tests (and root's
interpreter, which often lies in a home that only root may enter, is still to be executed).
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from trio_routes import testing

pytestmark = pytest.mark.netns

NOBODY = 65534


def as_user(uid: int) -> list[str]:
    # exec by another uid than 0 drops all capabilities (capabilities(7)).
    return ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}", "--"]


WITHOUT_RIGHTS = as_user(NOBODY)
# In a user namespace of its own, where a limit can be set that ends with it.
WITHOUT_NAMESPACES = [
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
    *("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"),
]

PRELUDE = """
import os, threading, trio
from trio_routes import testing
from trio_routes.testing import Lab, LabUnavailable, become_lab_root
"""


def run(prefix: list[str], program: str, **environment: str) -> str:
    return run_python(prefix, ["-c", PRELUDE + program], **environment)


def run_python(prefix: list[str], arguments: list[str], **environment: str) -> str:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    finished = subprocess.run(
        [*prefix, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
        check=False,
        timeout=60,
    )
    return finished.stdout


def test_here_is_a_lab() -> None:
    assert testing.Lab.unavailable() is None


def test_becoming_lab_root_twice_is_harmless() -> None:
    testing.become_lab_root()
    assert testing.Lab.unavailable() is None


def test_a_process_without_rights_gets_them_for_itself_and_its_lab_works() -> None:
    program = """
async def main():
    async with Lab() as lab:
        scene = lab.two_uplinks()
        for family in (4, 6):
            listener, = scene.server.listen(80, scene.server_addresses[family])
            async with listener, await scene.device.open_tcp_stream(scene.server_addresses[family], 80):
                print((await listener.accept()).socket.getpeername()[0])
        print(await scene.device.run(["id", "-u"]))
print("before:", Lab.unavailable())
become_lab_root()
print("after:", Lab.unavailable())
trio.run(main)
"""
    lines = run(WITHOUT_RIGHTS, program).splitlines()
    assert lines[0].startswith("before: making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN: call testing.")
    assert lines[1:] == ["after: None", "198.51.100.1", "2001:db8:f::1", "0", ""]


def test_a_lab_without_rights_is_refused_with_the_reason() -> None:
    program = """
async def main():
    async with Lab():
        pass
try:
    trio.run(main)
except LabUnavailable as error:
    print("refused:", error)
"""
    assert run(WITHOUT_RIGHTS, program).startswith("refused: making network namespaces needs")


def test_home_is_an_empty_network_with_loopback_up_afterwards() -> None:
    program = """
import socket
become_lab_root()
print(sorted(name for _, name in socket.if_nameindex()))
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname()).close()
print("connected")
"""
    assert run(WITHOUT_RIGHTS, program).splitlines() == ["['lo']", "connected"]


def test_the_users_name_stays_his_own() -> None:
    # As su and setpriv leave it: another user's name, by which pytest would choose its temporary folder.
    program = "become_lab_root(); print(os.environ['LOGNAME'])"
    assert run(WITHOUT_RIGHTS, program, LOGNAME="somebody") == pwd.getpwuid(NOBODY).pw_name + "\n"
    assert run(as_user(54321), program, LOGNAME="somebody") == "uid54321\n"


def test_files_are_made_as_the_user_that_one_was(tmp_path: Path) -> None:
    target = tmp_path / "made"
    run(WITHOUT_RIGHTS, f"become_lab_root(); open({str(target)!r}, 'w').close()")
    assert target.stat().st_uid == os.getuid()


def test_with_a_second_thread_it_is_too_late_and_says_so() -> None:
    program = """
go = threading.Event()
thread = threading.Thread(target=go.wait)
thread.start()
try:
    become_lab_root()
except LabUnavailable as error:
    print(error)
print(Lab.unavailable())
go.set()
thread.join()
"""
    said, kept = run(WITHOUT_RIGHTS, program).splitlines()
    assert said == kept
    assert said == (
        "a user namespace cannot be entered with 2 threads running: call become_lab_root() earlier, "
        "or run it under `unshare --user --map-root-user --net --mount`"
    )


def test_where_user_namespaces_are_forbidden_the_reason_names_the_cure_and_nothing_has_changed() -> None:
    program = """
before = os.readlink("/proc/self/ns/net"), os.getuid(), os.environ.get("LOGNAME")
try:
    become_lab_root()
except LabUnavailable as error:
    print(error)
print(Lab.unavailable())
print(before == (os.readlink("/proc/self/ns/net"), os.getuid(), os.environ.get("LOGNAME")))
"""
    said, kept, unchanged = run(WITHOUT_NAMESPACES, program).splitlines()
    assert said == kept
    assert said == (
        "no user namespace for the lab (unshare() was refused: No space left on device): raise the sysctls user.max_user_namespaces "
        "and user.max_net_namespaces (0 means none allowed)"
    )
    assert unchanged == "True"


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_tests_without_a_lab_are_skipped_or_where_it_is_required_fail(required: str, outcome: str) -> None:
    said = run_python(
        WITHOUT_NAMESPACES,
        [
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            f"{Path(__file__).parent}/test_links.py",
            "-k",
            "bridges_say_nothing",
        ],
        TRIO_ROUTES_REQUIRE_LAB=required,
    )
    assert outcome in said
    assert "raise the sysctls user.max_user_namespaces" in said
    assert " passed" not in said
