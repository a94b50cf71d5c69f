"""Which servers a config's `url` means: those that it names, and each address of a name that stands for several."""

import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

BY_NAME = "dns+http://"
"""Begins a URL whose name stands for as many servers as it has addresses, as a headless Service's does. It is said
and not guessed: `localhost` has two addresses too. http only: a certificate is for a name, not for an address."""

LookUp = Callable[[str], Sequence[str]]
"""The addresses of a host name. Raises: OSError: it has none, or nobody can say."""


def look_up(host: str) -> list[str]:
    """Addresses of a host name, sorted, each once."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def stands_for_several(url: str) -> bool:
    return url.startswith(BY_NAME)


def expand(urls: Sequence[str], look_up: LookUp) -> list[str]:
    """A URL for each server, in order.

    Raises: OSError: a name cannot be looked up.
    """
    return [each for url in urls for each in (_each_address(url, look_up) if stands_for_several(url) else [url])]


def _each_address(url: str, look_up: LookUp) -> list[str]:
    parts = urlsplit(url.removeprefix("dns+"))
    port, path = f":{parts.port}" if parts.port else "", parts.path
    hosts = [f"[{address}]" if ":" in address else address for address in look_up(parts.hostname or "")]
    return [f"http://{host}{port}{path}" for host in hosts]
