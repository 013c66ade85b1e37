"""`show clawgress …` of the router below $ROUTER_DIR."""

import os
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent
for place in ("conf-mode", "op-mode"):
    sys.path.insert(0, str(SOURCES / place))

import clawgress as script
from clawgress_vyos import program

directory = Path(os.environ["ROUTER_DIR"])
program.PROGRAM = os.environ["CLAWGRESS_PROGRAM"]
script.SETTINGS, script.COMMITTED = str(directory / "run/clawgress.toml"), str(directory / "run/committed.json")
script.PLACES = str(directory / "run/places.json")

# The script finds its settings in /run by itself; here they are elsewhere.
plain = program.call
program.call = lambda *words, **more: plain(*words, "--config", script.SETTINGS, **more) if os.path.exists(
    script.SETTINGS
) else plain(*words, "--config", "/dev/null", **more)
sys.exit(script.main())
