"""One commit of `service clawgress` with the `set` lines of standard input, below $ROUTER_DIR; no line: it is deleted.
With --tree a configuration that was judged already is read instead."""

import json
import os
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent
for place in ("tests/vyos/fake", "tests/vyos", "conf-mode", "vyos-templates"):
    sys.path.insert(0, str(SOURCES / place))

import service_clawgress as service
from clawgress_vyos import program, settings
from router import Router
from vyos import ConfigError
from vyos.config import Config

directory = Path(os.environ["ROUTER_DIR"])
program.PROGRAM = os.environ["CLAWGRESS_PROGRAM"]
service.RUNTIME, service.UNITS = str(directory / "run"), str(directory / "units")
settings.POLICY, settings.STATE = str(directory / "config/new/policy.json"), str(directory / "config/new/state")

Config.router = Router()
if sys.argv[1:] == ["--tree"]:
    Config.router.tree = json.load(sys.stdin)
else:
    for line in sys.stdin.read().splitlines():
        Config.router.do(line)
try:
    c = service.get_config()
    service.verify(c)
    service.generate(c)
    service.apply(c)
except ConfigError as error:
    print(error)
    sys.exit(1)
