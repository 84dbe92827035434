"""Outside programs that tests may use: `@pytest.mark.needs("chromium")` skips, with the reason, where one is absent.

`make tools` installs them all; continuous integration has them all, so nothing is skipped there.

Made-up input (Hypothesis) is the same in every run, so that a red test means a change; `HYPOTHESIS_PROFILE=explore
pytest …` looks for what nobody has thought of yet.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: how long an example takes says more about the machine.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

NODE_MODULES = Path(__file__).parent / "simulators" / "node" / "node_modules"
GO_MODULE_SOURCE = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb")
SOFTHSM_LIBRARIES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"))

PRESENT = {
    "node": lambda: shutil.which("node") is not None and NODE_MODULES.is_dir(),
    "go": lambda: shutil.which("go") is not None and GO_MODULE_SOURCE.is_dir(),
    "chromium": lambda: shutil.which("chromium") is not None,
    "axe": lambda: (NODE_MODULES / "axe-core").is_dir(),
    "postgresql": lambda: any(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    "softhsm": lambda: shutil.which("softhsm2-util") is not None and any(path.is_file() for path in SOFTHSM_LIBRARIES),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if not PRESENT[tool]():
                pytest.skip(f"{tool} is not installed; `make tools` installs it")
