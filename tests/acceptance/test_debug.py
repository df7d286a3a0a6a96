"""A debug job of a real container that leaves what a folder should not hold."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.images import Images
from tests.keys import KEY_RING

from vaka import Engine, EngineConfig, JobSpec, Mode, Status
from vaka.datafolder.archives import read_archive
from vaka.models.storage import FileQuery, StorageScope

pytestmark = pytest.mark.docker

SCOPE = StorageScope("1")
LEAVES = """
cd /data/out/files
grep -q '"#password": "my-secret"' /data/config.json || exit 1
echo fine > file
ln -s /etc/passwd link
ln -s /data loop
mkfifo pipe
dd if=/dev/zero of=sparse bs=1 count=0 seek=10000000000000
echo hidden > closed && chmod 000 closed
mkdir -p deep/er && echo leaf > deep/er/leaf
echo '{"note": "my-secret"}' > /data/out/state.json
"""


@pytest.mark.parametrize("form", ["zip", "tar.zst"])
async def test_what_a_hostile_component_leaves_is_shown_as_far_as_it_is_harmless(
    docker_host: str, images: Images, tmp_path: Path, form: Any
) -> None:
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
        key_ring_document=KEY_RING,
    )
    parameters = {"#password": "my-secret", "plain": "not-my-secret"}
    async with Engine(config) as engine:
        await engine.catalog.put_component(images.component("test.hostile", LEAVES))
        job = await engine.submit(
            JobSpec(
                component="test.hostile",
                config_data={"parameters": parameters},
                mode=Mode.DEBUG,
                snapshot_format=form,
            )
        )
        outcome = await job.wait()
        assert outcome.status is Status.SUCCESS, outcome.message
        events = [event async for event in job.events(follow=False)]
        found: dict[str, Mapping[str, str]] = {}
        for file in await engine.storage.files.list_files(SCOPE, FileQuery(tags=("debug",))):
            archive, folder = tmp_path / "archive", tmp_path / file.name.partition(".")[0]
            await engine.storage.files.download(SCOPE, file.id, archive)
            folder.mkdir()
            read_archive(archive, folder, limit=1 << 20)
            archive.unlink()
            found[file.name] = {
                path.relative_to(folder).as_posix(): path.read_text()
                for path in folder.rglob("*")
                if path.is_file()
            }
    first, last = found[f"stage_0.{form}"], found[f"stage_output.{form}"]
    assert json.loads(first["config.json"])["parameters"] == {
        "#password": "[hidden]",
        "plain": "not-[hidden]",
    }
    assert set(first) == {"config.json", "in/state.json"}
    left = {path: text for path, text in last.items() if path.startswith("out/")}
    left.pop("out/files/closed", None)  # root reads it, others do not
    assert left == {"out/files/file": "fine\n", "out/files/deep/er/leaf": "leaf\n"}
    (told,) = [event for event in events if event.level == "warn"]
    reasons = dict(each.split(": ", 1) for each in told.data["left_out_paths"])
    reasons.pop("out/files/closed", None)
    assert reasons == {
        "out/files/link": "a symbolic link",
        "out/files/loop": "a symbolic link",
        "out/files/pipe": "a named pipe",
        "out/files/sparse": "mostly holes",
    }
    assert not any("my-secret" in event.message for event in events)
