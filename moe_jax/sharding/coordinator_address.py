"""The address that the coordinator listens on, as restricted as possible."""

import contextlib
import os
import socket

from moe_jax.errors import UserError

# The environment variable of JAX for the address.
BIND_VARIABLE = "JAX_COORDINATOR_BIND_ADDRESS"
# Wildcard addresses, which stand for all addresses of a machine.
ANY = ("::", "0.0.0.0")


def split_address(address: str) -> tuple[str, int]:
    """Splits HOST:PORT into host and port.

    Raises:
        UserError: if the address has another form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"the coordinator must be HOST:PORT, not {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Returns True for a host name that refers to the local machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


def bind_address(address: str) -> str:
    """Returns the HOST:PORT that process 0 listens on: only the coordinator's own address.

    `JAX_COORDINATOR_BIND_ADDRESS` overrides it, for a coordinator whose address is translated, such
    as that of a container. If the name resolves to a loopback address on this machine, and to
    another address elsewhere, all addresses have to be listened on.

    Raises:
        UserError: if the coordinator's host is unknown or has no address on this machine.
    """
    if given := os.environ.get(BIND_VARIABLE):
        split_address(given)
        return given
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"the coordinator's host {host} is unknown: {error.strerror}") from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    outer = [name for name in addresses if not is_loopback(name)]
    if not outer and not is_loopback(host):
        # As in /etc/hosts of Debian. The other machines know another address, which cannot be
        # determined here: the only case in which all addresses are needed.
        return f"[::]:{port}" if socket.has_dualstack_ipv6() else f"0.0.0.0:{port}"
    for name in outer or addresses:
        if _is_local(name):
            return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    raise UserError(
        f"process 0 cannot listen on {host}:{port}: {', '.join(outer or addresses)} is not an "
        "address of this machine. Is process 0 on another host? Where the address is translated, "
        f"as a container's is, set {BIND_VARIABLE}=0.0.0.0:{port}"
    )


def _is_local(name: str) -> bool:
    """Returns True if an address belongs to this machine."""
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((name, 0))
        return True
    return False


def listen(address: str) -> socket.socket:
    """Returns a socket that listens on HOST:PORT.

    Raises:
        UserError: if the port is taken.
    """
    host, port = split_address(address)
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on {address}: {error.strerror or error}; "
            "is another run using the port?"
        ) from None
