"""The smoketest that routers run, run here."""

import importlib.util
import unittest

from conftest import SOURCES
from vyos.utils import process


def test_the_smoketest_passes_on_a_router_in_a_namespace(gateway):
    path = SOURCES / "vyos-templates/smoketest/test_service_clawgress.py"
    spec = importlib.util.spec_from_file_location("smoketest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    process.router = gateway
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 5
