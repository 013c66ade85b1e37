#!/usr/bin/env python3
"""Smoketest of `service clawgress`, for a router on which its package is installed.

    /usr/libexec/vyos/tests/smoke/cli/test_service_clawgress.py
"""

import json
import unittest

from base_vyostest_shim import VyOSUnitTestSHIM
from vyos.configsession import ConfigSessionError
from vyos.utils.process import process_named_running

PROCESS_NAME = "clawgress"
BASE_PATH = ["service", "clawgress"]
POLICY = [*BASE_PATH, "policy"]
SHOW = ["show", "clawgress"]
# No interface of the router has to have it.
SOURCE = "192.0.2.10/32"


class TestServiceClawgress(VyOSUnitTestSHIM.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # On a router in use there may be one already.
        cls.cli_delete(cls, BASE_PATH)

    def setUp(self):
        # The scope keeps what the router forwards for others out of it.
        self.cli_set([*POLICY, "scope", "source", SOURCE])
        self.cli_set([*BASE_PATH, "listen-address", "127.0.0.1"])
        self.cli_set([*BASE_PATH, "dns", "upstream", "192.0.2.53"])
        self.cli_set([*BASE_PATH, "enable"])

    def tearDown(self):
        self.cli_delete(BASE_PATH)
        self.cli_commit()
        self.assertFalse(process_named_running(PROCESS_NAME))

    def shown_policy(self):
        return json.loads(self.op_mode([*SHOW, "policy", "show"]))

    def test_a_policy_is_enforced(self):
        self.cli_set([*POLICY, "host", "agent-1", "source", SOURCE])
        self.cli_set([*POLICY, "host", "agent-1", "domain", "my-site.example.com", "label", "llm-provider"])
        self.cli_set([*POLICY, "host", "agent-1", "domain", "*.example.org"])
        self.cli_set([*POLICY, "host", "agent-1", "port", "443"])
        self.cli_commit()

        self.assertTrue(process_named_running(PROCESS_NAME))
        status = self.op_mode([*SHOW, "status"])
        self.assertIn("enforcing", status)
        self.assertNotIn("FAIL", status)
        policy = self.shown_policy()
        self.assertEqual(policy["hosts"]["agent-1"]["allow"],
                         {"domains": ["my-site.example.com", "*.example.org"], "ports": [443]})
        self.assertEqual(policy["labels"], {"my-site.example.com": "llm-provider"})
        self.assertIn("table inet clawgress", self.op_mode([*SHOW, "firewall"]))
        self.assertIn("my-site.example.com", self.op_mode([*SHOW, "rpz"]))
        self.assertIn("allow", self.op_mode([*SHOW, "explain", "source", "192.0.2.10", "domain", "a.example.org"]))

    def test_windows(self):
        self.cli_set([*POLICY, "time-zone", "Europe/Berlin"])
        self.cli_set([*POLICY, "time-window", "day", "mon"])
        self.cli_set([*POLICY, "time-window", "start", "09:00"])
        # A start needs an end.
        with self.assertRaises(ConfigSessionError):
            self.cli_commit()
        self.cli_set([*POLICY, "time-window", "end", "17:00"])
        self.cli_commit()
        self.assertEqual(self.shown_policy()["time_window"], {"days": ["mon"], "start": "09:00", "end": "17:00"})

    def test_wrong_values_are_refused(self):
        for words in (["port", "65536"], ["ip", "192.0.2.1/24"], ["domain", "*.com"], ["domain", "a..b.example"],
                      ["time-window", "start", "24:00"], ["time-zone", "Nowhere"], ["mode", "off"]):
            with self.assertRaises(ConfigSessionError, msg=words):
                self.cli_set([*POLICY, *words])

    def test_a_refused_commit_leaves_what_was_enforced(self):
        self.cli_set([*POLICY, "domain", "a.example.com"])
        self.cli_commit()
        before = self.shown_policy()
        self.cli_set([*POLICY, "host", "agent-9", "mode", "enforce"])
        with self.assertRaises(ConfigSessionError) as refused:
            self.cli_commit()
        self.assertIn("policy host agent-9: needs a source", str(refused.exception))
        self.assertEqual(self.shown_policy(), before)

    def test_deleting_enable_opens(self):
        self.cli_commit()
        self.assertTrue(process_named_running(PROCESS_NAME))
        self.cli_delete([*BASE_PATH, "enable"])
        self.cli_commit()
        self.assertFalse(process_named_running(PROCESS_NAME))


if __name__ == "__main__":
    unittest.main(verbosity=2)
