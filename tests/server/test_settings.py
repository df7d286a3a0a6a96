"""Settings from the environment."""

from pathlib import Path

import pytest

from vaka.config import EngineConfig
from vaka.errors import InvalidInput
from vaka_server import settings


def test_every_setting_of_the_engine_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAKA_HOME", str(tmp_path))
    monkeypatch.setenv("VAKA_CONCURRENCY", "3")
    monkeypatch.setenv("VAKA_PORT", "0")
    loaded = settings.load()
    assert loaded.port == 0
    expected = EngineConfig(
        home=tmp_path,
        concurrency=3,
        shutdown="adopt",
        storage_api_url="http://127.0.0.1:0",
    )
    assert loaded.engine == expected
    assert settings.load(port=81, home=None).port == 81


def test_the_server_listens_on_loopback_and_leaves_jobs_running_unless_told_otherwise() -> None:
    loaded = settings.load()
    assert (loaded.address, loaded.port, loaded.shutdown) == ("127.0.0.1", 8080, "adopt")


def test_components_reach_the_server_where_clients_do() -> None:
    assert settings.load(public_url="https://a").engine.storage_api_url == "https://a"
    both = settings.load(public_url="https://a", storage_api_url="http://inside:1")
    assert both.engine.storage_api_url == "http://inside:1"


def test_a_secret_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://u:p@h/d\n")
    monkeypatch.setenv("VAKA_STORE_URL_FILE", str(secret))
    assert settings.load().store_url == "postgresql+psycopg://u:p@h/d"
    monkeypatch.setenv("VAKA_STORE_URL", "sqlite://")
    with pytest.raises(InvalidInput, match="Both VAKA_STORE_URL and VAKA_STORE_URL_FILE"):
        settings.load()
    monkeypatch.delenv("VAKA_STORE_URL")
    monkeypatch.setenv("VAKA_STORE_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="VAKA_STORE_URL_FILE: cannot read"):
        settings.load()


def test_a_value_that_cannot_be_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAKA_CONCURRENCY", "none")
    monkeypatch.setenv("VAKA_PORT", "70000")
    with pytest.raises(InvalidInput) as caught:
        settings.load()
    assert "VAKA_CONCURRENCY: " in caught.value.message
    assert "VAKA_PORT: " in caught.value.message


def test_a_variable_without_effect_is_reported() -> None:
    environment = {
        "VAKA_CONCURENCY": "1",
        "VAKA_ZZZ": "",
        "VAKA_HOME": "/a",
        "VAKA_STORE_URL_FILE": "/b",
        "VAKA_TOKEN": "c",
        "PATH": "",
    }
    assert settings.unknown_variables(environment) == {
        "VAKA_CONCURENCY": "VAKA_CONCURRENCY",
        "VAKA_ZZZ": None,
    }
