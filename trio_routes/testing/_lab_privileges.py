"""The rights that the lab needs, and how a process without them gets them for itself.

Making and entering network namespaces takes CAP_SYS_ADMIN, configuring them CAP_NET_ADMIN. Being uid 0
is neither needed nor enough: a container's root usually lacks CAP_SYS_ADMIN.

An unprivileged process can have both in a *user namespace* of its own (user_namespaces(7)). It enters
one without exec, so that pytest keeps its capturing and pytest-xdist's workers inherit it. Three rules shape the code:

- unshare(CLONE_NEWUSER) is EINVAL in a process with several threads, so it must come early;
- from inside, setns() back into the machine's own network namespace is EPERM, so a private one is
  made in the same step and becomes "home": afterwards the process has no real network;
- there is no way back, and failing half-way would leave the process as "nobody" in an empty network.
  So a forked child goes the whole way first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from ._namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, Namespace, unshare

# include/uapi/linux/capability.h
_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21

# include/uapi/linux/sockios.h and if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sh22x")

_BY_HAND = "run it under `unshare --user --map-root-user --net --mount`"

# Why become_lab_root() failed, for unavailable(): what the system refused once it refuses always.
_refusals: list[str] = []


class LabUnavailable(Exception):  # noqa: N818  # a state of the system, not a mistake; reads as pytest's "skipped"
    """The process cannot have a namespace lab; the message is one line, the cure included."""


def unavailable() -> str | None:
    """Say why this process cannot have a namespace lab, in one line with the cure, or None if it can.

    Changes nothing.
    """
    if sys.platform != "linux":
        return "the namespace lab needs Linux"
    if _has_capabilities():
        return None
    if _refusals:
        return _refusals[-1]
    return (
        "making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN: call testing.become_lab_root() "
        f"before the first thread starts (in pytest_configure), or {_BY_HAND}"
    )


def become_lab_root() -> None:
    """Give this process the lab's rights, by entering a user namespace of its own if it has them not.

    Does nothing where the rights are there. Otherwise the process is root *in its namespace* afterwards,
    with files made as the user it was; it sees no network but an empty one with ``lo`` up; and there is no way
    back. ``LOGNAME`` is set to the user's own name, which ``getpass.getuser()`` would now call "root": pytest
    would take the real root's temporary folder for its own. Call it early: a second thread makes it impossible.

    Raises:
      LabUnavailable: The system refuses; the process is as it was. ``Lab.unavailable()`` repeats the reason.
    """
    if sys.platform != "linux":
        raise LabUnavailable("the namespace lab needs Linux")
    if _has_capabilities():
        return
    try:
        _refuse_threads()
        _try_in_a_child()
        _enter_user_namespace()
    except LabUnavailable as error:
        _refusals.append(str(error))
        raise


def _has_capabilities() -> bool:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> _CAP_NET_ADMIN & 1 and effective >> _CAP_SYS_ADMIN & 1)
    return False


def _refuse_threads() -> None:
    count = len(os.listdir("/proc/self/task"))
    if count > 1:
        raise LabUnavailable(
            f"a user namespace cannot be entered with {count} threads running: call become_lab_root() earlier, "
            f"or {_BY_HAND}"
        )


def _enter_user_namespace() -> None:
    uid, gid, name = os.getuid(), os.getgid(), _user_name()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        # An unprivileged process must give up setgroups() before it may map its group (user_namespaces(7)).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        # The proof that the rights are real: some systems grant the namespace and withhold them.
        Namespace.new().close()
        _bring_up_loopback()
    except OSError as error:
        raise LabUnavailable(_explain(error)) from error
    os.environ["LOGNAME"] = name


def _user_name() -> str:
    # Not getpass.getuser(): it believes LOGNAME, which su and setpriv leave behind from another user.
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = _IFREQ.pack(b"lo", 0)
        _name, flags = _IFREQ.unpack(fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _try_in_a_child() -> None:
    """Go the whole way in a forked child.

    Raises:
      LabUnavailable: With the child's reason.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _tell_and_exit(writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _pid, status = os.waitpid(child, 0)
    if status != 0:
        raise LabUnavailable(said or f"the trial of a user namespace ended with wait status {status}")


def _tell_and_exit(writing: int) -> NoReturn:
    # os._exit() whatever happens: the child is a copy of a test runner in full flight.
    status = 1
    try:
        _enter_user_namespace()
        status = 0
    except LabUnavailable as error:
        os.write(writing, str(error).encode())
    finally:
        os._exit(status)


def _explain(error: OSError) -> str:
    """Turn the refusal into one line with the cure."""
    if error.errno == errno.ENOSPC:
        cure = "raise the sysctls user.max_user_namespaces and user.max_net_namespaces (0 means none allowed)"
    elif _reads("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        cure = "set the sysctl kernel.unprivileged_userns_clone=1"
    elif _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        cure = "set the sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
    else:
        cure = "run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, in a container with a seccomp profile for unshare()"
    return f"no user namespace for the lab ({error.strerror or error}): {cure}"


def _reads(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
