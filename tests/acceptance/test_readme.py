"""What the README says is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.acceptance.conftest import PATIENCE, Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def test_the_embedding_example_runs(busybox_image: str, images: Images, tmp_path: Path) -> None:
    (example,) = blocks("python")
    assert "alpine:3.20" in example
    program = example.replace("alpine:3.20", busybox_image)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "log hello" in done.stdout
    assert "job.finished Component processing finished." in done.stdout
    assert images.containers("vaka") == []


def test_the_server_example_runs(
    server: Server, demo_images: dict[str, str], tmp_path: Path
) -> None:
    assert "demo-hello" in demo_images
    server.start()
    _, _, script = blocks("sh")
    script = script.replace("http://127.0.0.1:8080", server.url).replace("…", server.token)
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"waiting"' in done.stdout.replace(" ", "")
    first = server.wait("1")
    assert first["status"] == "success"
    assert server.logged("1")[-1] == "Hello, world! This is run 1."
    assert "Hello, world! This is run 2." in done.stdout
