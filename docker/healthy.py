"""Whether the service in this container takes work: exit code 0, or 1 and why.  Needs Python's own library alone."""

import os
import sys
from http.client import HTTPConnection, HTTPException

_TIMEOUT_S = 8  # below that of HEALTHCHECK, so that the reason is told


def fault(environment: dict[str, str]) -> str:
    """What is wrong; empty where nothing is."""
    port = int(environment.get("EMBOUNDARY_PORT", "8000"))
    # A service that answers to some names only is asked by one of them.
    name = environment.get("EMBOUNDARY_ALLOWED_HOSTS", "").split(",")[0].strip() or "127.0.0.1"
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready", headers={"Host": name})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"port {port} does not answer: {error!r}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{answer.status}: {text}"


if __name__ == "__main__":
    sys.exit(fault(dict(os.environ)) or None)
