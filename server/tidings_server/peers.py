"""Peers: whether a request comes from this machine itself."""

from __future__ import annotations

import ipaddress

from aiohttp import web

__all__ = ["is_local"]

_FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def is_local(request: web.BaseRequest) -> bool:
    """Tell whether a program on this machine asks, for itself: a proxy's address is local too, but it names another."""
    if any(name in request.headers for name in _FORWARDING_HEADERS):
        return False
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
