"""Where a server listens: the URL that leads there, and whether it can."""

from __future__ import annotations

import socket

import pytest

from tidings_server.listening import find_port, make_url
from tidings_tasks.settings import SettingsError


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
        ("192.0.2.7", "http://192.0.2.7:80"),
    ],
)
def test_the_url_is_one_that_a_browser_here_can_open(host: str, url: str) -> None:
    """An address for all interfaces is none to open; IPv6 goes into brackets."""
    assert make_url(host, 80) == url


def test_port_zero_becomes_a_free_one() -> None:
    """The found port can be listened on at once."""
    with socket.create_server(("127.0.0.1", find_port("127.0.0.1", 0))) as listener:
        assert listener.getsockname()[1] != 0


def test_a_port_whose_last_connection_just_closed_is_free() -> None:
    """A restarted server is not refused because of connections in TIME_WAIT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
        served.close()
        client.close()
    assert find_port("127.0.0.1", port) == port


def test_a_host_that_is_not_here_is_refused() -> None:
    """The message names the setting to change."""
    with pytest.raises(SettingsError, match="no address of this machine") as caught:
        find_port("192.0.2.7", 0)
    assert caught.value.errors[0].field == "TIDINGS_HOST"
