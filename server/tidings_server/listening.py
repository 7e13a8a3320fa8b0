"""Where a server listens: whether it can, found out before anything is started, and the URL that leads there."""

from __future__ import annotations

import errno
import ipaddress
import socket

from tidings.protocol.errors import FieldError
from tidings_tasks.settings import SettingsError

__all__ = ["find_port", "make_url"]


def find_port(host: str, port: int) -> int:
    """Return ``port`` when the server can listen there, or a free one for 0.

    Raises:
        SettingsError: it is in use or not allowed, or the host is none of this machine; the message says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise _refusal("TIDINGS_HOST", f"{host!r} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                message = (
                    f"port {port} on {host} is in use: end what listens there, or give another one with --port N "
                    "(0 takes a free one)"
                )
            case errno.EACCES:
                message = f"port {port} needs rights that this user has not; give one from 1024 with --port N"
            case errno.EADDRNOTAVAIL:
                raise _refusal("TIDINGS_HOST", f"{host} is no address of this machine") from error
            case _:
                message = f"port {port} on {host} cannot be used: {error.strerror}"
        raise _refusal("PORT", message) from error


def make_url(host: str, port: int) -> str:
    """Return the URL under which a browser on this machine reaches a server that listens on ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _refusal(field: str, message: str) -> SettingsError:
    return SettingsError(
        "the settings are not valid:", errors=[FieldError(field=field, code="unusable", message=message)]
    )
