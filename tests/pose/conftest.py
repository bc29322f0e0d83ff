"""The network that finds bright spots, in memory and as a file."""

import pytest
from spots import spot_network


@pytest.fixture(scope="session")
def network():
    return spot_network()


@pytest.fixture(scope="session")
def network_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "spots.keras"
    network.save(path)
    return path
