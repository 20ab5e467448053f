"""Check whether a page can be served at an address, before anything is loaded, and who could reach it there."""

import ipaddress
import socket


def check_address(host: str, port: int | None = None) -> None:
    """Refuse an address at which no page can be served.

    Args:
        host: name or address of this machine.
        port: None: any.

    Raises:
        OSError: the port is in use, or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{host} cannot be used" if port is None else f"port {port} of {host} cannot be used"
        raise OSError(f"{where} ({error.strerror or error}): give another --port, or another --host") from error


def is_open_to_others(host: str) -> bool:
    """Whether other machines may reach what is served at an address.

    Args:
        host: name or address of this machine, for which :func:`check_address` raises no error.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return not all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
