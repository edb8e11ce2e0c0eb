"""Process 0 listens on the coordinator's address and no other."""

import socket

import pytest

from moe_jax.errors import UserError
from moe_jax.sharding import coordinator_address


@pytest.mark.parametrize("address", ["host", "host:", ":80", "host:99999", "host:a"])
def test_addresses_are_checked(address):
    with pytest.raises(UserError, match="HOST:PORT"):
        coordinator_address.split_address(address)


@pytest.fixture
def known(monkeypatch):
    """Fakes name resolution, and which addresses are local."""
    monkeypatch.delenv(coordinator_address.BIND_VARIABLE, raising=False)

    def use(names, ours=()):
        def find(host, port, **kinds):
            if host not in names:
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, 1, 6, "", (name, port)) for name in names[host]]

        monkeypatch.setattr(socket, "getaddrinfo", find)
        monkeypatch.setattr(coordinator_address, "_is_local", lambda name: name in ours)

    return use


@pytest.mark.parametrize(
    ("found", "ours", "expected"),
    [
        (["10.0.0.7"], ["10.0.0.7"], "10.0.0.7:80"),
        (["10.0.0.7", "10.0.1.7"], ["10.0.1.7"], "10.0.1.7:80"),
        (["127.0.1.1", "10.0.0.7"], ["127.0.1.1", "10.0.0.7"], "10.0.0.7:80"),
        (["fd00::7"], ["fd00::7"], "[fd00::7]:80"),
    ],
)
def test_it_is_an_address_of_the_coordinators_name_and_of_this_machine(
    known, found, ours, expected
):
    known({"host-a": found}, ours)
    assert coordinator_address.bind_address("host-a:80") == expected


def test_a_name_that_means_this_machine_only_listens_to_this_machine_only(known):
    known({"localhost": ["127.0.0.1"]}, ["127.0.0.1"])
    assert coordinator_address.bind_address("localhost:80") == "127.0.0.1:80"


def test_a_name_that_others_know_by_another_address_leaves_no_choice(known):
    known({"host-a": ["127.0.1.1"]}, ["127.0.1.1"])
    host, _ = coordinator_address.split_address(coordinator_address.bind_address("host-a:80"))
    assert host in coordinator_address.ANY


def test_another_machines_address_is_refused_with_the_way_out(known, monkeypatch):
    known({"host-b": ["10.0.0.8"]}, ["10.0.0.7"])
    with pytest.raises(UserError, match=r"10\.0\.0\.8 is not an address of this machine.*0:80"):
        coordinator_address.bind_address("host-b:80")
    with pytest.raises(UserError, match="host host-c is unknown"):
        coordinator_address.bind_address("host-c:80")
    monkeypatch.setenv(coordinator_address.BIND_VARIABLE, "0.0.0.0:80")
    assert coordinator_address.bind_address("host-b:80") == "0.0.0.0:80"


def test_what_is_listened_on_is_reached_by_that_address_alone():
    """A loopback address of its own: the machine's other addresses do not answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    bound = coordinator_address.bind_address(f"127.0.0.2:{port}")
    with coordinator_address.listen(bound) as server:
        assert server.getsockname()[0] == "127.0.0.2"
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with pytest.raises(UserError, match="another run using the port"):
            coordinator_address.listen(f"127.0.0.2:{port}")
