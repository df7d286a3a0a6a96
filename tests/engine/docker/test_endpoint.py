"""Which daemon is meant, by arguments, environment and the command line's stored contexts."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from vaka.docker import Docker, DockerContextInvalidError, DockerContextTLSError
from vaka.docker import _endpoint as endpoint_module
from vaka.docker._endpoint import Endpoint, find_endpoint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing in it, and no variable that says where Docker is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def store_context(home: Path, name: str, host: str, **more: Any) -> Path:
    """Store a context as the command line does; gives the folder of its certificates."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **more}}}))
    return home / ".docker/contexts/tls" / key / "docker"


def make_current(home: Path, name: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"currentContext": name}))


def test_what_is_said_most_explicitly_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argument", "variable", "current"):
        store_context(home, name, f"tcp://{name}:1")

    def host() -> str:
        return find_endpoint(None, None, None).host

    make_current(home, "current")
    assert host() == "current"
    monkeypatch.setenv("DOCKER_CONTEXT", "variable")
    assert host() == "variable"
    monkeypatch.setenv("DOCKER_HOST", "tcp://docker-host:1")
    assert host() == "docker-host"
    assert find_endpoint(None, "argument", None).host == "argument"
    assert find_endpoint("tcp://url:1", "argument", None).host == "url"


def test_without_a_word_the_first_socket_there_is_is_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "SOCKETS", (str(home / "none.sock"), str(home / "file")))
    (home / "file").touch()
    assert find_endpoint(None, None, None).path == "/var/run/docker.sock"


@pytest.mark.parametrize(
    ("url", "path", "base_url"),
    [
        ("unix:///run/x.sock", "/run/x.sock", "http://localhost"),
        ("tcp://host", None, "http://host:2375"),
        ("http://host:99", None, "http://host:99"),
        ("https://host", None, "https://host:2376"),
        ("tcp://[::1]:5", None, "http://[::1]:5"),
    ],
)
def test_an_address_says_how_to_connect(url: str, path: str | None, base_url: str) -> None:
    endpoint = find_endpoint(url, None, None)
    assert (endpoint.address, endpoint.path, endpoint.base_url) == (url, path, base_url)


def test_a_context_of_ones_own_makes_it_tls() -> None:
    context = ssl.create_default_context()
    endpoint = find_endpoint("tcp://host:5", None, context)
    assert endpoint == Endpoint("tcp://host:5", host="host", port=5, ssl_context=context)


@pytest.mark.parametrize(
    "url",
    ["/var/run/docker.sock", "unix://", "ssh://host", "npipe:////./pipe/x", "tcp://", "tcp://h/p"],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="Docker Engine address"):
        Docker(url)


def test_the_environments_certificates_are_used(
    monkeypatch: pytest.MonkeyPatch, certificates: Any
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with pytest.raises(ValueError, match="set DOCKER_CERT_PATH"):
        find_endpoint("tcp://host", None, None)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates.folder))
    endpoint = find_endpoint("tcp://host", None, None)
    assert endpoint.base_url == "https://host:2376"
    assert endpoint.ssl_context is not None
    assert endpoint.ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_a_contexts_certificates_are_used(home: Path, certificates: Any) -> None:
    folder = store_context(home, "remote", "tcp://host:2376")
    assert find_endpoint(None, "remote", None).ssl_context is None
    shutil.copytree(certificates.folder, folder)
    found = find_endpoint(None, "remote", None).ssl_context
    assert found is not None
    assert found.check_hostname
    (folder / "cert.pem").write_text("no certificate")
    with pytest.raises(DockerContextTLSError, match=r"cannot be used.*\(context: remote\)"):
        find_endpoint(None, "remote", None)


def test_a_context_may_ask_not_to_verify(home: Path, certificates: Any) -> None:
    folder = store_context(home, "lax", "tcp://host:2376", SkipTLSVerify=True)
    shutil.copytree(certificates.folder, folder)
    found = find_endpoint(None, "lax", None).ssl_context
    assert found is not None
    assert found.verify_mode is ssl.CERT_NONE


def test_the_context_named_default_is_none_at_all(home: Path) -> None:
    make_current(home, "default")
    assert find_endpoint(None, None, None).path is not None


def test_a_context_that_is_not_there_is_named(home: Path) -> None:
    make_current(home, "gone")
    with pytest.raises(DockerContextInvalidError, match=r"missing.*\(context: gone\)"):
        Docker()


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_configuration_is_named(home: Path, content: str) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(content)
    with pytest.raises(DockerContextInvalidError, match=r"config\.json"):
        Docker()


def test_a_context_without_a_host_is_named(home: Path) -> None:
    store_context(home, "empty", "")
    key = hashlib.sha256(b"empty").hexdigest()
    (home / ".docker/contexts/meta" / key / "meta.json").write_text('{"Endpoints": {}}')
    with pytest.raises(DockerContextInvalidError, match=r"no Endpoints\.docker\.Host"):
        Docker(context="empty")


@pytest.mark.parametrize("argument", ["connector", "session"])
def test_aiohttps_objects_are_refused_with_the_reason(argument: str) -> None:
    with pytest.raises(TypeError, match="connections are this client's own"):
        Docker("unix:///x.sock", **dict[str, Any]({argument: object()}))
