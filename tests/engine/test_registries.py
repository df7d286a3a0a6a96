"""Credentials: what Docker's command has written, helper programs, and Amazon's tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.amazon import KEYS, Amazon, serve_amazon

from vaka.ecr import authorization_token, signature
from vaka.errors import ApplicationError
from vaka.models.container import RegistryAuth
from vaka.registries import registry_host, stored_credentials

HOST = "registry.example.com:5000"


def write(folder: Path, **document: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def encoded(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("alpine", "docker.io"),
        ("alpine:3.20", "docker.io"),
        ("team/alpine:3.20", "docker.io"),
        ("docker.io/library/alpine", "docker.io"),
        ("index.docker.io/library/alpine", "docker.io"),
        ("quay.io/team/image:1", "quay.io"),
        ("localhost/image:1", "localhost"),
        (f"{HOST}/team/image@sha256:00", HOST),
    ],
)
def test_a_reference_names_its_registry(reference: str, host: str) -> None:
    assert registry_host(reference) == host


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/"])
async def test_credentials_stand_in_the_file(tmp_path: Path, key: str) -> None:
    folder = write(tmp_path, auths={"other.example.com": {}, key: encoded("me:a:b")})
    assert await stored_credentials(HOST, folder) == RegistryAuth(HOST, "me", "a:b")


async def test_a_registry_may_have_given_a_token(tmp_path: Path) -> None:
    folder = write(tmp_path, auths={HOST: {"identitytoken": "t0ken"}})
    assert await stored_credentials(HOST, folder) == RegistryAuth(HOST, "<token>", "t0ken")


@pytest.mark.parametrize("document", [{}, {"auths": {}}, {"auths": {HOST: {}}}, {"auths": []}])
async def test_nothing_known_is_an_anonymous_pull(tmp_path: Path, document: Any) -> None:
    assert await stored_credentials(HOST, tmp_path) is None
    assert await stored_credentials(HOST, write(tmp_path, **document)) is None


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ApplicationError, match=str(tmp_path)):
        await stored_credentials(HOST, tmp_path)
    write(tmp_path, auths={HOST: {"auth": "?"}})
    with pytest.raises(ApplicationError, match=f"docker login {HOST}"):
        await stored_credentials(HOST, tmp_path)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of `docker-credential-test`, which knows one registry and fails for `bad`."""
    program = tmp_path / "docker-credential-test"
    program.write_text(
        "#!/bin/sh\n"
        "read -r server\n"
        'case "$1 $server" in\n'
        f"""'get {HOST}') echo '{{"ServerURL": "x", "Username": "h", "Secret": "s"}}' ;;\n"""
        "'get bad') echo 'the keychain is locked'; exit 1 ;;\n"
        "'get odd') echo 'hello' ;;\n"
        "*) echo 'credentials not found in native keychain'; exit 1 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize("document", [{"credHelpers": {HOST: "test"}}, {"credsStore": "test"}])
async def test_a_helper_is_asked(helper: Path, document: Any) -> None:
    folder = write(helper, auths={HOST: encoded("file:f")}, **document)
    assert await stored_credentials(HOST, folder) == RegistryAuth(HOST, "h", "s")


async def test_what_a_helper_does_not_know_may_stand_in_the_file(helper: Path) -> None:
    folder = write(helper, auths={"else": encoded("file:f")}, credsStore="test")
    assert await stored_credentials("else", folder) == RegistryAuth("else", "file", "f")
    assert await stored_credentials("nowhere", folder) is None


@pytest.mark.parametrize(
    ("host", "name", "words"),
    [
        ("bad", "test", "failed for bad: the keychain is locked"),
        ("odd", "test", "something else than credentials"),
        ("any", "absent", "docker-credential-absent for any, .* cannot be run"),
    ],
)
async def test_a_helper_that_fails_is_named(helper: Path, host: str, name: str, words: str) -> None:
    with pytest.raises(ApplicationError, match=words):
        await stored_credentials(host, write(helper, credsStore=name))


# -- Amazon's tokens ---------------------------------------------------------------------------

URI = "147946154733.dkr.ecr.eu-central-1.amazonaws.com/team/one"


def test_a_request_is_signed_as_amazon_publishes_it() -> None:
    # `post-vanilla` of the published test suite of signature version 4
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    signed = signature(
        headers,
        b"",
        "us-east-1",
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        service="service",
    )
    assert signed == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


@pytest.fixture
def amazon() -> Iterator[Amazon]:
    with serve_amazon("AWS:long-password") as amazon:
        yield amazon


async def test_a_token_is_asked_for_the_account_of_the_image(amazon: Amazon) -> None:
    environment = {**amazon.environment, "AWS_SESSION_TOKEN": "session"}
    auth = await authorization_token(URI, "eu-central-1", environment)
    assert auth == RegistryAuth(URI.partition("/")[0], "AWS", "long-password")
    ((headers, body),) = amazon.requests
    assert body == {"registryIds": ["147946154733"]}
    assert headers["x-amz-target"].endswith(".GetAuthorizationToken")
    assert headers["x-amz-security-token"] == "session"
    assert "/eu-central-1/ecr/aws4_request, " in headers["authorization"]
    assert "s3cret" not in str(headers)


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, {"__type": "UnrecognizedClientException", "message": "invalid token"}, "invalid"),
        (400, ["?"], "400"),
        (200, {"authorizationData": []}, "without a token"),
    ],
)
async def test_a_refusal_is_told_in_amazons_words(
    amazon: Amazon, status: int, answer: Any, words: str
) -> None:
    amazon.status, amazon.answer = status, answer
    with pytest.raises(ApplicationError, match=words) as caught:
        await authorization_token(URI, "eu-central-1", amazon.environment)
    assert "s3cret" not in caught.value.message


async def test_a_service_that_does_not_answer_is_named() -> None:
    environment = {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    with pytest.raises(ApplicationError, match=r"127\.0\.0\.1:1 does not answer"):
        await authorization_token(URI, "eu-central-1", environment)


async def test_keys_and_an_account_are_needed() -> None:
    with pytest.raises(ApplicationError, match="No AWS credentials: AWS_SECRET_ACCESS_KEY must"):
        await authorization_token(URI, "eu-central-1", {"AWS_ACCESS_KEY_ID": "a"})
    with pytest.raises(ApplicationError) as caught:
        await authorization_token("no-dot", "eu-central-1", KEYS)
    assert caught.value.message == 'Invalid image ID format: "no-dot".'
