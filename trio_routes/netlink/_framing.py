"""Where one netlink message ends and the next begins, and what the control messages say.

A datagram is a row of messages, each aligned to 4 bytes (NLMSG_ALIGNTO):

     0        4      6      8          12       16
     +--------+------+------+----------+--------+-----------------+~~~~~~~+
     | length | type | flags| sequence | port   | payload         | pad   |
     +--------+------+------+----------+--------+-----------------+~~~~~~~+
     |<------------------- length in bytes ---------------------->|

All integers are in the host's byte order (linux/netlink.h, RFC 3549 section 2.2). An ERROR's
payload is a negative errno and the header of the request that it answers, then the request's own
payload unless NLM_F_CAPPED says that it was left out, then attributes (the kernel's explanation)
if NLM_F_ACK_TLVS says so.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from .._errors import NetlinkDecodeError
from ._attributes import Attributes, Buffer, align, attribute_string, attribute_u32

HEADER: Final = struct.Struct("=IHHII")
HEADER_SIZE: Final = HEADER.size


class MessageType(enum.IntEnum):
    """What a message is (linux/netlink.h, linux/rtnetlink.h). Headers hold the plain integer."""

    NOOP = 1
    ERROR = 2
    DONE = 3
    OVERRUN = 4
    RTM_NEWLINK = 16
    RTM_DELLINK = 17
    RTM_GETLINK = 18
    RTM_SETLINK = 19
    RTM_NEWADDR = 20
    RTM_DELADDR = 21
    RTM_GETADDR = 22
    RTM_NEWROUTE = 24
    RTM_DELROUTE = 25
    RTM_GETROUTE = 26
    RTM_NEWNEIGH = 28
    RTM_DELNEIGH = 29
    RTM_GETNEIGH = 30
    RTM_NEWRULE = 32
    RTM_DELRULE = 33
    RTM_GETRULE = 34
    RTM_NEWPREFIX = 52
    RTM_NEWNDUSEROPT = 68
    RTM_NEWNETCONF = 80
    RTM_DELNETCONF = 81
    RTM_GETNETCONF = 82
    RTM_NEWNEXTHOP = 104
    RTM_DELNEXTHOP = 105
    RTM_GETNEXTHOP = 106


# Flags of every message.
NLM_F_REQUEST: Final = 0x1
NLM_F_MULTI: Final = 0x2
NLM_F_ACK: Final = 0x4
NLM_F_ECHO: Final = 0x8
NLM_F_DUMP_INTR: Final = 0x10  # the table changed under the dump: ask again
NLM_F_DUMP_FILTERED: Final = 0x20
# Of a GET request.
NLM_F_ROOT: Final = 0x100
NLM_F_MATCH: Final = 0x200
NLM_F_DUMP: Final = NLM_F_ROOT | NLM_F_MATCH
# Of a NEW request, and of the notification that it causes.
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
# Of an ERROR or DONE.
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200

# Multicast groups of rtnetlink (enum rtnetlink_groups), for NETLINK_ADD_MEMBERSHIP.
RTNLGRP_LINK: Final = 1
RTNLGRP_NEIGH: Final = 3
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV4_RULE: Final = 8
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV6_ROUTE: Final = 11
RTNLGRP_IPV6_IFINFO: Final = 12
RTNLGRP_IPV6_PREFIX: Final = 18
RTNLGRP_IPV6_RULE: Final = 19
RTNLGRP_ND_USEROPT: Final = 20
RTNLGRP_IPV4_NETCONF: Final = 24
RTNLGRP_IPV6_NETCONF: Final = 25
RTNLGRP_NEXTHOP: Final = 32

_NLMSGERR_ATTR_MSG = 1
_NLMSGERR_ATTR_OFFS = 2
_ERRNO = struct.Struct("=i")


class Header(NamedTuple):
    """A message's header (struct nlmsghdr).

    Attributes:
      length: Bytes of header and payload, without the padding after it.
      type: A `MessageType`, as a plain integer: the kernel knows more than we do.
      flags: NLM_F_*; what the upper bits mean depends on the type.
      sequence: The request's that is answered; 0 in a notification.
      port: The port id of the socket that asked (or whose change is announced). Not the sender's:
        that is in the socket address, and only there can it be trusted.
    """

    length: int
    type: int
    flags: int
    sequence: int
    port: int


@attrs.frozen(slots=True)
class ErrorMessage:
    """The end of a request: an ERROR message, or a DONE.

    Attributes:
      errno: The kernel's error number, positive; 0 is an acknowledgement, or a dump that ended well.
      request: The header of the request that failed; for a DONE its own header.
      ext_ack: The kernel's own explanation (NLMSGERR_ATTR_MSG), or "". A successful request can carry one: a warning.
      offset: Where in the request the fault is, in bytes from its start (NLMSGERR_ATTR_OFFS), or None.
    """

    errno: int
    request: Header
    ext_ack: str = ""
    offset: int | None = None


def iter_messages(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[tuple[Header, int, int]]:
    """Yield ``(header, start, end)`` of each message in a datagram, where start and end bound its payload in ``data``.

    Args:
      data: A buffer that holds one datagram.
      start: Offset in bytes of the first message to read.
      end: Offset in bytes just past the datagram; None for the whole of ``data``.

    Raises:
      NetlinkDecodeError: A header is cut off, or a length is under 16 or runs past the end. What was
        yielded before stands; nothing after it was looked at.
    """
    size = len(data)
    end = size if end is None else end
    if not 0 <= start <= size or end > size:
        raise NetlinkDecodeError("the datagram's bounds lie outside the buffer", start)
    while start < end:
        if start + HEADER_SIZE > end:
            raise NetlinkDecodeError(f"{end - start} bytes are left, too few for a header", start)
        header = Header._make(HEADER.unpack_from(data, start))
        past = start + header.length
        if header.length < HEADER_SIZE or past > end:
            raise NetlinkDecodeError(f"a message claims {header.length} bytes of {end - start}", start)
        yield header, start + HEADER_SIZE, past
        start += align(header.length)


def lone_message(data: Buffer) -> tuple[int, int] | None:
    """Return ``(type, flags)`` of the message that is the whole datagram; None for anything else, broken ones included.

    Nearly every notification is one: the kernel sends each in a packet of its own (nlmsg_notify). For a single message
    `iter_messages` takes five times as long, and half of what its decoding takes.
    """
    if len(data) < HEADER_SIZE:
        return None
    length, type, flags, _, _ = HEADER.unpack_from(data)
    return (type, flags) if length == len(data) else None


def build_message(type: int, flags: int, sequence: int, payload: bytes, port: int = 0) -> bytes:
    """Return one message, padded to 4 bytes as the kernel pads its own, so that messages can simply be joined.

    The padding is not part of the length field.
    """
    length = HEADER_SIZE + len(payload)
    return HEADER.pack(length, type, flags, sequence, port) + payload + bytes(align(length) - length)


def decode_error(data: Buffer, start: int, end: int) -> ErrorMessage:
    """Decode the payload ``data[start:end]`` of an ERROR message.

    The message's own header, which says whether the request was capped, is read at ``start - 16``.

    Raises:
      NetlinkDecodeError: The payload is too short, its errno is positive, or its attributes break their framing.
    """
    header = _header_before(data, start, end)
    if end - start < _ERRNO.size + HEADER_SIZE:
        raise NetlinkDecodeError("an error message is cut off", start)
    request = Header._make(HEADER.unpack_from(data, start + _ERRNO.size))
    quoted = HEADER_SIZE if header.flags & NLM_F_CAPPED else align(request.length)
    # A request's length was checked by the kernel before it answered; here it may be anything.
    attributes = start + _ERRNO.size + max(quoted, HEADER_SIZE)
    ext_ack, offset = _decode_ext_ack(data, header.flags, attributes, end)
    return ErrorMessage(_decode_errno(data, start), request, ext_ack, offset)


def decode_done(data: Buffer, start: int, end: int) -> ErrorMessage:
    """Decode the payload ``data[start:end]`` of the DONE message that ends a dump.

    Its errno is how the dump went: kernels report there what went wrong in the middle of one. An
    empty payload (which some other netlink families send) is a dump that ended well.

    Raises:
      NetlinkDecodeError: As for `decode_error`.
    """
    header = _header_before(data, start, end)
    if start == end:
        return ErrorMessage(0, header)
    if end - start < _ERRNO.size:
        raise NetlinkDecodeError("the end of a dump is cut off", start)
    ext_ack, offset = _decode_ext_ack(data, header.flags, start + _ERRNO.size, end)
    return ErrorMessage(_decode_errno(data, start), header, ext_ack, offset)


def encode_error(errno: int, request: Header, ext_ack: str = "", offset: int | None = None) -> tuple[int, bytes]:
    """Return ``(flags, payload)`` of a capped ERROR message, as a kernel answers a socket with NETLINK_CAP_ACK.

    Args:
      errno: Positive, or 0 to acknowledge.
      request: The header of the request that is answered.
      ext_ack: An explanation, as a socket with NETLINK_EXT_ACK gets it.
      offset: Where in the request the fault is, in bytes.
    """
    attributes = _error_attributes(ext_ack, offset)
    flags = NLM_F_CAPPED | (NLM_F_ACK_TLVS if attributes else 0)
    return flags, _ERRNO.pack(-errno) + HEADER.pack(*request) + attributes


def encode_done(errno: int = 0, ext_ack: str = "") -> tuple[int, bytes]:
    """Return ``(flags, payload)`` of the DONE message that ends a dump; ``errno`` is positive, or 0."""
    attributes = _error_attributes(ext_ack, None)
    return NLM_F_MULTI | (NLM_F_ACK_TLVS if attributes else 0), _ERRNO.pack(-errno) + attributes


def _header_before(data: Buffer, start: int, end: int) -> Header:
    if start < HEADER_SIZE or not start <= end <= len(data):
        raise NetlinkDecodeError("there is no message header before this payload", start)
    return Header._make(HEADER.unpack_from(data, start - HEADER_SIZE))


def _decode_errno(data: Buffer, start: int) -> int:
    (negative,) = _ERRNO.unpack_from(data, start)
    if negative > 0:
        raise NetlinkDecodeError(f"an error number of {-negative}", start)
    return -int(negative)


def _decode_ext_ack(data: Buffer, flags: int, start: int, end: int) -> tuple[str, int | None]:
    if not flags & NLM_F_ACK_TLVS:
        return "", None
    found = Attributes(data, start, end)
    return found.string(_NLMSGERR_ATTR_MSG), found.u32(_NLMSGERR_ATTR_OFFS) if _NLMSGERR_ATTR_OFFS in found else None


def _error_attributes(ext_ack: str, offset: int | None) -> bytes:
    encoded = attribute_string(_NLMSGERR_ATTR_MSG, ext_ack) if ext_ack else b""
    return encoded if offset is None else encoded + attribute_u32(_NLMSGERR_ATTR_OFFS, offset)
