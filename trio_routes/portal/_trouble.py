"""From an exception to a finding: what the kernel, the resolver and the TLS library mean by it. Pure."""

from __future__ import annotations

import errno
import socket
import ssl

import trio

from ._evidence import Finding
from ._way import CannotBindError, NameSilentError

# How connect() says that the routing table will not have it: no route, `unreachable`, `prohibit`, `blackhole`
# (ip-route(8); the same four as NoRouteError's).
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
_FINDINGS = {
    errno.ECONNREFUSED: Finding.REFUSED,
    errno.ETIMEDOUT: Finding.TIMEOUT,
    errno.ECONNRESET: Finding.CLOSED,
}
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH (openssl/x509_vfy.h). Everything else is a matter of trust.
_MISMATCHES = frozenset({62, 64})


def finding_of_error(error: Exception, *, naming: bool = False) -> Finding:
    """Tell what an error was.

    Args:
      error: An OSError of a socket or the resolver; an `ssl.SSLError`; or a trio.BrokenResourceError with its cause.
      naming: Whether it came while a name was looked up.
    """
    if isinstance(error, trio.BrokenResourceError):
        cause = error.__cause__
        return finding_of_error(cause) if isinstance(cause, OSError) else Finding.CLOSED
    if isinstance(error, ssl.SSLError):  # before OSError: its errno is none (1 would read as EPERM)
        return _finding_of_tls(error)
    if isinstance(error, CannotBindError):
        return Finding.CANNOT_BIND
    if naming:
        return Finding.NAME_SILENT if _is_silence(error) else Finding.NAME_FAILED
    number = error.errno if isinstance(error, OSError) else None
    return Finding.NO_ROUTE if number in _NO_ROUTE else _FINDINGS.get(number or 0, Finding.OTHER)


def _is_silence(error: Exception) -> bool:
    return isinstance(error, NameSilentError) or (
        isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    )


def _finding_of_tls(error: ssl.SSLError) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding.WRONG_NAME if error.verify_code in _MISMATCHES else Finding.UNTRUSTED
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Finding.CLOSED
    return Finding.NOT_TLS


def sentence(error: BaseException) -> str:
    """What an error says, for a person to read; never empty."""
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else None
    told = cause or error
    text = told.strerror if isinstance(told, OSError) and told.strerror else str(told)
    return text or type(told).__name__
