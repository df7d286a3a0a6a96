"""What importing the package costs and needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vaka.docker

PROGRAM = """
import sys, types
parent = types.ModuleType("vaka")
parent.__path__ = [sys.argv[1]]
sys.modules["vaka"] = parent            # without what the engine's own package imports
import vaka.docker
print(*sorted(sys.modules))
"""


def test_importing_it_loads_neither_http_nor_tls_nor_anything_of_the_engine() -> None:
    folder = Path(vaka.docker.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    heavy = {"httpx", "httpcore", "h11", "ssl", "tarfile", "asyncio", "trio", "aiohttp", "pydantic"}
    assert "vaka.docker.containers" in loaded
    assert loaded & heavy == set()
    others = {m for m in loaded if m.startswith("vaka.") and not m.startswith("vaka.docker")}
    assert others == set()


def test_every_public_name_is_there() -> None:
    assert sorted(vaka.docker.__all__) == list(vaka.docker.__all__)
    assert all(hasattr(vaka.docker, name) for name in vaka.docker.__all__)
