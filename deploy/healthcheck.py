"""Ask this container's own process whether it lives: ``healthcheck.py DEFAULT_PORT VARIABLE …``; status 0 for yes.

The first variable that is set names the port, as in the process itself. The standard library alone is used.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from http.client import HTTPException

TIMEOUT_S = 3.0


def main(default_port: str, *variables: str) -> int:
    """Return 0 when ``/health/live`` answers 200 in time, else 1."""
    port = next((os.environ[name] for name in variables if os.environ.get(name)), default_port)
    # A proxy that the environment names is for calls out of the container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health/live", timeout=TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"not alive on port {port}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
