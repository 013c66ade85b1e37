"""What upstream's smoketests are built on: a session of the command line. Here of a router in a namespace."""

import unittest

from router import Router, SetFailed, shown
from vyos.configsession import ConfigSessionError
from vyos.utils import process


class VyOSUnitTestSHIM:
    class TestCase(unittest.TestCase):
        session = None

        @classmethod
        def setUpClass(cls):
            cls.session = Router()

        def cli_set(self, words):
            try:
                self.session.set(words)
            except SetFailed as error:
                raise ConfigSessionError(str(error)) from None

        def cli_delete(self, words):
            self.session.delete(words)

        def cli_commit(self):
            answer = process.router.commit_tree(self.session.tree)
            assert answer.stderr == "", answer.stderr
            if answer.returncode != 0:
                raise ConfigSessionError(answer.stdout)

        def op_mode(self, words):
            answer = process.router.show(*shown(words))
            assert answer.returncode == 0, answer.stderr
            return answer.stdout
