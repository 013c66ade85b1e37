"""What the tests of the router's parts share. They need no router: `fake/vyos` stands for its Python modules."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent
for place in ("tests/vyos/fake", "tests/vyos", "op-mode", "conf-mode", "vyos-templates"):
    sys.path.insert(0, str(SOURCES / place))

import router
from clawgress_vyos import program
from gateway import Gateway

# The program is built by `cargo test` or `cargo build`; without it nothing here means anything.
assert router.PROGRAM.exists(), f"{router.PROGRAM} is missing: run `cargo build` first"
program.PROGRAM = str(router.PROGRAM)


@pytest.fixture
def gateway(tmp_path):
    """A router in a network namespace of its own, which needs root."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("this test needs root")
        pytest.skip("SKIP: needs root, for a network namespace of its own")
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.close()


@pytest.fixture(scope="session")
def contract():
    """The configuration commands of SPEC section 6, verbatim."""
    return (HERE / "contract.txt").read_text().splitlines()
