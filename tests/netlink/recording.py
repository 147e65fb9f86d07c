"""The recorded datagrams (data/record.py made them), and the decoder and encoder of each message family."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from trio_routes.netlink import (
    Header,
    MessageType,
    build_message,
    decode_address,
    decode_link,
    decode_neighbour,
    decode_netconf,
    decode_nexthop,
    decode_route,
    decode_rule,
    encode_address,
    encode_link,
    encode_neighbour,
    encode_netconf,
    encode_nexthop,
    encode_route,
    encode_rule,
    iter_messages,
)

FILE = Path(__file__).parent / "data" / "recorded.json.gz"
DATAGRAMS = {
    name: [bytes.fromhex(text) for text in texts]
    for name, texts in json.loads(gzip.decompress(FILE.read_bytes())).items()
}
ALL_DATAGRAMS = [data for datagrams in DATAGRAMS.values() for data in datagrams]


class Recorded(NamedTuple):
    """One recorded message."""

    name: str
    header: Header
    payload: bytes

    @property
    def whole(self) -> bytes:
        """Header, payload and padding."""
        return build_message(
            self.header.type, self.header.flags, self.header.sequence, self.payload, port=self.header.port
        )


MESSAGES = [
    Recorded(name, header, data[start:end])
    for name, datagrams in DATAGRAMS.items()
    for data in datagrams
    for header, start, end in iter_messages(data)
]


def recorded(kind: MessageType, within: str = "") -> list[Recorded]:
    """Return the messages of RTM_NEW`kind` and of the RTM_DEL beside it, of all recordings or of one."""
    return [message for message in MESSAGES if message.header.type in (kind, kind + 1) and within in ("", message.name)]


_Message = TypeVar("_Message")


class Codec(NamedTuple):
    """One message family; what its messages are made of is hidden, so that all stand in one table."""

    kind: MessageType
    decode: Callable[[bytes, int, int], object]
    encode_again: Callable[[bytes], bytes]


def _codec(
    kind: MessageType, decode: Callable[[bytes, int, int], _Message], encode: Callable[[_Message], bytes]
) -> Codec:
    def encode_again(payload: bytes) -> bytes:
        return encode(decode(payload, 0, len(payload)))

    return Codec(kind, decode, encode_again)


CODECS = [
    _codec(MessageType.RTM_NEWLINK, decode_link, encode_link),
    _codec(MessageType.RTM_NEWADDR, decode_address, encode_address),
    _codec(MessageType.RTM_NEWROUTE, decode_route, encode_route),
    _codec(MessageType.RTM_NEWNEIGH, decode_neighbour, encode_neighbour),
    _codec(MessageType.RTM_NEWRULE, decode_rule, encode_rule),
    _codec(MessageType.RTM_NEWNETCONF, decode_netconf, encode_netconf),
    _codec(MessageType.RTM_NEWNEXTHOP, decode_nexthop, encode_nexthop),
]


def _damage(data: bytes, changes: list[tuple[int, int]], start: int, length: int, inserted: bytes) -> bytes:
    damaged = bytearray(data)
    for index, value in changes:
        damaged[index % len(damaged)] = value
    start %= len(damaged)
    damaged[start : start + length] = inserted
    return bytes(damaged)


def damaged(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return real bytes with some of them changed, and in one place some cut out or put in."""
    anywhere = st.integers(0, 4095)
    # Small values make other lengths and types that are still plausible; 0 and 255 are the edges.
    octet = st.one_of(st.integers(0, 40), st.integers(0, 255))
    return st.builds(
        _damage,
        st.sampled_from(originals),
        st.lists(st.tuples(anywhere, octet), max_size=6),
        anywhere,
        st.sampled_from([0, 0, 0, 1, 4, 8, 100]),
        st.sampled_from([b"", b"", b"", b"\0", b"\x08\0\x01\0\n\0\0\1", b"\xff" * 7]),
    )
