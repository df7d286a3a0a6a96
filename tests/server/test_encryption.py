"""`/docker/encrypt` and `/docker/migrate`, also below `/encryption` (encryption.md section 9)."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import trio
from pydantic import SecretStr
from tests.server.conftest import Answer, Site, make_site, runtime_plugin

from vaka import Engine
from vaka.encryption import load_json
from vaka.errors import ApplicationError
from vaka.hooks import Encryptor, hookimpl
from vaka.models.ciphers import PREFIXES, WRITTEN_PREFIXES, CipherScope, Scope
from vaka.testing import FakeHost
from vaka_keyring import ring
from vaka_server.problems import Refused
from vaka_server.rates import KEPT, Rates
from vaka_server.settings import Settings

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/spec/encryption-vectors.json").read_text()
)
KEY_V1 = base64.b64decode(VECTORS["legacy_outcomes"]["key_version1_b64"]).decode()
C, P, F = "docker-config-encrypt-verify", "123", "77"
OPERATOR = "an operator's secret"
JSON = "application/json"
TEXT = "text/plain"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    ring.write(home / "keys", ring.new_ring("first"), create=True)
    return Settings(
        home=home,
        idle_poll=0.5,
        shutdown="stop",
        stack_id="connection.example.com",
        legacy_key_version1=SecretStr(KEY_V1),
        operator_token=SecretStr(OPERATOR),
    )


async def send(
    site: Site,
    path: str,
    body: Any,
    *,
    type_: str | None = JSON,
    token: str | None = None,
    operator: bool = False,
) -> Answer:
    """A body as it is, or as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if type_ is None else {"Content-Type": type_}
    if operator:
        headers["X-Vaka-Operator-Token"] = OPERATOR
    return await site.ask("POST", path, data=data, headers=headers, token=token)


async def migrate(site: Site, query: str, body: Any, **options: Any) -> Answer:
    return await send(
        site, f"/docker/migrate?{query}", body, **{"token": "admin", "operator": True, **options}
    )


async def answered(site: Site, path: str, body: str) -> tuple[int, str]:
    """The status and the very text of an answer to JSON."""
    options: dict[str, Any] = {
        "data": body.encode(),
        "headers": {"Content-Type": JSON, "X-StorageApi-Token": site.tokens["admin"]},
    }
    response = await site.app.test_client().open(path, method="POST", **options)
    data = await response.get_data(as_text=False)
    assert isinstance(data, bytes)
    return response.status_code, data.decode()


def vector(group: str, **context: str) -> Any:
    """The first vector of a group for a context, with a text in it."""
    for each in VECTORS[group]["vectors"]:
        if all(each.get(name) == value for name, value in context.items()):
            plain = base64.b64decode(each["plaintext_b64"])
            if plain and each["key_version1"] == base64.b64encode(KEY_V1.encode()).decode():
                return each["cipher"], plain.decode()
    raise LookupError((group, context))


def message(answer: Answer) -> str:
    assert answer.value["status"] == "error"
    return str(answer.value.get("message") or answer.value["error"])


# -- encrypt -----------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 37)
@pytest.mark.scenario("runner", 36)
@pytest.mark.parametrize("path", ["/docker/encrypt", "/encryption/encrypt"])
async def test_marked_values_of_a_document_are_encrypted(site: Site, path: str) -> None:
    document = {"key1": "value1", "#key2": "value2"}

    answer = await send(site, f"{path}?componentId={C}", document)

    assert answer.status == 200
    assert list(answer.value) == ["key1", "#key2"]
    assert answer.value["key1"] == "value1"
    assert answer.value["#key2"].startswith("KBC::ComponentSecure::")
    assert await site.engine.encryption.decrypt(answer.value, Scope(C)) == document
    project = await send(site, f"{path}?componentId={C}&projectId={P}", document)
    assert project.value["#key2"].startswith("KBC::ProjectSecure::")
    again = await send(site, f"{path}?componentId={C}&projectId={P}", project.value)
    assert again.value == project.value  # what is encrypted stays as it is


@pytest.mark.scenario("encryption", 38)
@pytest.mark.scenario("encryption", 46)
@pytest.mark.scenario("runner", 37)
@pytest.mark.scenario("runner", 38)
@pytest.mark.scenario("storage-api", 119)
@pytest.mark.parametrize(
    ("query", "family"),
    [
        (f"componentId={C}", "ComponentSecure"),
        (f"componentId={C}&projectId={P}", "ProjectSecure"),
        (f"componentId={C}&projectId={P}&configId={F}", "ConfigSecure"),
        (f"projectId={P}", "ProjectWideSecure"),
        (f"componentId={C}&projectId={P}&branchType=dev", "BranchTypeSecure"),
        (
            f"componentId={C}&projectId={P}&configId={F}&branchType=default",
            "BranchTypeConfigSecure",
        ),
        (f"projectId={P}&branchType=dev", "ProjectWideBranchTypeSecure"),
        (f"componentId={C}&projectId=0", "ProjectSecure"),
    ],
)
async def test_the_ids_choose_the_family(site: Site, query: str, family: str) -> None:
    for body, type_ in ((b"value", TEXT), (b'{"#x":"value"}', JSON)):
        answer = await send(site, f"/docker/encrypt?{query}", body, type_=type_)

        assert answer.status == 200
        cipher = answer.value.decode() if type_ == TEXT else answer.value["#x"]
        assert cipher.startswith(f"KBC::{family}::")
    without = await send(site, f"/docker/encrypt?componentId={C}&configId={F}", {})
    assert without.status == 400


@pytest.mark.scenario("encryption", 39)
@pytest.mark.scenario("encryption", 47)
@pytest.mark.scenario("runner", 42)
@pytest.mark.scenario("runner", 43)
@pytest.mark.scenario("storage-api", 118)
@pytest.mark.parametrize("text", [b"value", b"with a line end\n", b"", b" x ", b"\xff\x00\xfe"])
async def test_a_text_becomes_one_cipher_byte_for_byte(site: Site, text: bytes) -> None:
    path = f"/docker/encrypt?componentId={C}"

    answer = await send(site, path, text, type_="Text/Plain; charset=UTF-8")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    cipher = answer.value.decode()
    assert cipher.startswith("KBC::ComponentSecure::")
    assert await site.engine.encryption.decrypt_bytes(cipher, Scope(C)) == text
    twice = await send(site, path, cipher.encode(), type_=TEXT)
    assert twice.value.decode() == cipher
    placeholder = await send(site, path, b"{{ name }}", type_=TEXT)
    assert placeholder.value == b"{{ name }}"


@pytest.mark.scenario("encryption", 39)
@pytest.mark.scenario("storage-api", 118)
@pytest.mark.parametrize(
    ("body", "plain"), [('"value"', "value"), ("true", "1"), ("12", "12"), ("0", "0"), ('""', "")]
)
async def test_a_json_scalar_becomes_a_json_text(site: Site, body: str, plain: str) -> None:
    answer = await send(
        site,
        f"/encryption/encrypt?componentId={C}",
        body.encode(),
        type_="application/json; charset=UTF-8",
    )

    assert answer.status == 200
    assert answer.headers["Content-Type"] == JSON
    assert await site.engine.encryption.decrypt(answer.value, Scope(C)) == plain


@pytest.mark.scenario("encryption", 25)
@pytest.mark.scenario("runner", 46)
@pytest.mark.scenario("runner", 47)
@pytest.mark.parametrize(
    "body",
    [
        '{"#nested":{"emptyObject":{},"emptyArray":[]},"nested":{"emptyObject":{},"emptyArray":[]},'
        '"emptyObject":{},"emptyArray":[],"emptyScalar":null}',
        "[]",
        "{}",
        "null",
        '{"a":1.0,"b":[1e2,123456789012345678901234567890,-0.10,-0],"c":{"\\u0000":true}}',
    ],
)
async def test_what_is_no_secret_comes_back_byte_for_byte(site: Site, body: str) -> None:
    assert await answered(site, f"/docker/encrypt?componentId={C}", body) == (200, body)


@pytest.mark.scenario("encryption", 40)
@pytest.mark.scenario("runner", 44)
@pytest.mark.parametrize("type_", [None, "someotherheader;", "text/html"])
async def test_a_body_is_text_or_json(site: Site, type_: str | None) -> None:
    for path in ("encrypt", "migrate"):
        answer = await send(
            site, f"/docker/{path}?componentId={C}", b"{}", type_=type_, token="admin"
        )

        assert (answer.status, message(answer)) == (400, "Incorrect Content-Type.")


@pytest.mark.scenario("encryption", 41)
@pytest.mark.scenario("encryption", 42)
@pytest.mark.scenario("encryption", 43)
@pytest.mark.scenario("encryption", 46)
@pytest.mark.scenario("runner", 39)
@pytest.mark.scenario("runner", 40)
@pytest.mark.scenario("runner", 41)
@pytest.mark.scenario("storage-api", 119)
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "Component Id is required."),
        ("branchType=x", "Component Id is required."),
        ("nonExistentParameter=1", "Unknown parameter: 'nonExistentParameter'."),
        ("a=1&componentId=&b=2&a=3", "Unknown parameter: 'a,b'."),
        (
            f"componentId={C}&configId=1&branchType=x",
            "The configId parameter must be used together with projectId.",
        ),
        (
            f"componentId={C}&branchType=x",
            "The branchType parameter must be used together with projectId.",
        ),
        (
            "projectId=1&configId=2&branchType=x",
            "The configId parameter must be used together with componentId.",
        ),
        ("projectId=1&branchType=x", 'The branchType parameter must be "default" or "dev".'),
        (f"componentId={C}&projectId=", 'Parameter "projectId" must not be empty.'),
        (f"componentId={C}&branchType=", 'Parameter "branchType" must not be empty.'),
        (
            f"componentId={C}&componentId=D",
            'Parameter "componentId" must be given once, as a text.',
        ),
        (f"componentId={C}&projectId[]=1", "Unknown parameter: 'projectId[]'."),
    ],
)
async def test_the_parameters_are_checked_in_order(site: Site, query: str, words: str) -> None:
    for path in ("/docker/encrypt", "/encryption/encrypt"):
        answer = await send(site, f"{path}?{query}", b"wtf", type_="x/y")

        assert (answer.status, message(answer)) == (400, words)
        assert answer.value["code"] == 400


@pytest.mark.scenario("runner", 45)
@pytest.mark.scenario("encryption", 44)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"key1": wtf}', "Syntax error"),
        (b"", "Syntax error"),
        (b"[" * 512 + b"]" * 512, "Maximum stack depth exceeded"),
        (b"[" * 1_000_000, "Maximum stack depth exceeded"),
        (b'{"#x":"\xff"}', "Malformed UTF-8"),
    ],
)
async def test_a_body_that_is_no_json_is_refused(site: Site, body: bytes, reason: str) -> None:
    answer = await send(site, f"/docker/encrypt?componentId={C}", body)

    assert answer.status == 400
    assert message(answer).startswith(f"Bad JSON format of request body: {reason}")


@pytest.mark.scenario("encryption", 45)
@pytest.mark.scenario("runner", 48)
async def test_nobody_may_keep_the_answer_and_every_page_may_ask(site: Site) -> None:
    answer = await send(site, f"/docker/encrypt?componentId={C}", {"#x": "y"}, token=None)

    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "private, no-cache, no-store, must-revalidate"
    for what in ("Origin", "Methods", "Headers"):
        assert answer.headers[f"Access-Control-Allow-{what}"] == "*"


@pytest.mark.scenario("encryption", 28)
async def test_texts_in_lists_stay_plain_and_their_paths_are_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await send(site, f"/docker/encrypt?componentId={C}", {"é": {"#list": ["a-plain-one"]}})

    assert answer.value == {"é": {"#list": ["a-plain-one"]}}
    assert json.loads(answer.headers["X-Vaka-Left-Plain"]) == ["é.#list[0]"]
    (told,) = [each for each in caplog.records if each.message == "encryption.left_plain"]
    assert vars(told)["paths"] == ["é.#list[0]"]
    assert "a-plain-one" not in caplog.text


async def test_t10_ids_are_compared_byte_by_byte_and_must_be_unicode(site: Site) -> None:
    texts = {
        "nfc": "caf\u00e9",
        "nfd": "cafe\u0301",
        "upper": "CAF\u00c9",
        "other": "c\u0430f\u00e9",
    }
    ciphers = {
        name: (
            await send(site, f"/docker/encrypt?componentId={quote(text)}", b"s", type_=TEXT)
        ).value.decode()
        for name, text in texts.items()
    }
    for name, text in texts.items():
        for other, cipher in ciphers.items():
            reads = await migrate(site, f"componentId={quote(text)}", cipher.encode(), type_=TEXT)
            assert reads.status == (200 if name == other else 400), (name, other)
    for wrong in ("%ed%a0%80", "%ff", "a%00b", "x" * 256):
        answer = await send(site, f"/docker/encrypt?componentId={wrong}", b"s", type_=TEXT)
        assert answer.status == 400, wrong


async def test_t11_what_is_too_large_is_refused(site: Site) -> None:
    path = f"/docker/encrypt?componentId={C}"

    assert (await send(site, path, b"x" * (1 << 20), type_=TEXT)).status == 200
    assert (await send(site, path, b"x" * ((1 << 20) + 1), type_=TEXT)).status == 400
    assert (await send(site, path, b"x" * ((10 << 20) + 1), type_=TEXT)).status == 413
    many = await send(site, path, {f"#{n}": "" for n in range(10_001)})
    assert many.status == 400
    assert "10000" in message(many)
    assert (await send(site, path, {f"#{n}": "" for n in range(10_000)})).status == 200


async def test_t16_equal_secrets_have_different_ciphers(site: Site) -> None:
    bodies = {
        (await send(site, f"/docker/encrypt?componentId={C}", b"one", type_=TEXT)).value
        for _ in range(1_000)
    }

    assert len(bodies) == 1_000


async def test_t8_the_generic_family_cannot_be_asked_for(site: Site) -> None:
    for query in ("", "componentId=", "stackId=x", "projectId="):
        assert (await send(site, f"/docker/encrypt?{query}", b"s", type_=TEXT)).status == 400
    generic = await site.engine.encryption.encrypt("s", Scope())
    assert str(generic).startswith("KBC::Secure::")
    narrowed = await migrate(site, f"componentId={C}", str(generic).encode(), type_=TEXT)
    assert narrowed.value.startswith(b"KBC::ComponentSecure::")


async def test_t7_nothing_makes_older_ciphers(site: Site) -> None:
    for query in (f"componentId={C}", f"componentId={C}&projectId={P}", f"projectId={P}"):
        answer = await send(site, f"/docker/encrypt?{query}", {"#a": "1", "b": {"#c": "2"}})
        assert "Encrypted==" not in json.dumps(answer.value)


class Down(Encryptor):
    """A key provider that does not answer."""

    @property
    def name(self) -> str:
        return "down"

    @property
    def code(self) -> int:
        return 0xF1

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        raise ApplicationError("The key service is away.")

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        raise ApplicationError("The key service is away.")

    async def check(self) -> None:
        return


@pytest.fixture
async def down(tmp_path: Path, host: FakeHost) -> AsyncIterator[Site]:
    @hookimpl
    def vaka_encryptors() -> list[Encryptor]:
        return [Down()]

    settings = Settings(home=tmp_path / "down", shutdown="stop")
    plugins = [runtime_plugin(host), SimpleNamespace(vaka_encryptors=vaka_encryptors)]
    async with Engine(settings.engine, plugins=plugins) as engine:
        yield await make_site(engine, settings, host)


@pytest.mark.scenario("encryption", 48)
async def test_a_provider_that_is_down_is_not_the_callers_business(
    down: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    answer = await send(down, f"/docker/encrypt?componentId={C}", {"#x": "hunter2"})

    assert answer.status == 500
    assert message(answer) == "Contact support@keboola.com and attach this exception id."
    assert answer.value["exceptionId"] in caplog.text + str([vars(each) for each in caplog.records])
    (told,) = [each for each in caplog.records if each.message == "key_provider.failed"]
    assert vars(told)["reason"] == "provider_failed"
    assert "hunter2" not in caplog.text


async def test_the_service_says_whether_it_has_keys(site: Site) -> None:
    assert (await site.get("/encryption", token=None))["canEncrypt"] is True
    services = (await site.get("/v2/storage", token=None))["services"]
    assert {"encryption", "sync-actions"} <= {each["id"] for each in services}


# -- the rate ----------------------------------------------------------------------------------


async def test_t28_one_address_may_only_ask_so_much(
    settings: Settings, host: FakeHost, autojump_clock: Any
) -> None:
    slow = settings.model_copy(update={"encrypt_rate": 60})
    async with Engine(settings.engine, plugins=[runtime_plugin(host)]) as engine:
        site = await make_site(engine, slow, host)
        path = f"/docker/encrypt?componentId={C}"

        first = await send(site, path, {f"#{n}": "x" for n in range(90)})
        assert first.status == 200
        refused = await send(site, path, b"x", type_=TEXT)
        assert refused.status == 429
        wait = int(refused.headers["Retry-After"])
        assert 30 <= wait <= 32
        other = await site.ask(
            "POST", path, data=b"x", headers={"Content-Type": TEXT, "X-Forwarded-For": "192.0.2.7"}
        )
        assert other.status == 429  # nobody has said that this may be believed
        autojump_clock.jump(wait)
        assert (await send(site, path, b"x", type_=TEXT)).status == 200


def test_a_rate_counts_each_client_and_forgets_none_too_early(mock_clock: Any) -> None:
    async def ask() -> None:
        rates = Rates(60)
        rates.charge("2001:db8::1", 60)
        for same in ("2001:db8::1", "2001:db8::2:3"):
            with pytest.raises(Refused):
                rates.admit(same)
        for other in ("2001:db8:0:1::1", "192.0.2.1", None):
            rates.admit(other)
        for n in range(KEPT):
            rates.charge(f"client {n}", 1)
        rates.admit("2001:db8::1")  # of very many, those that asked longest ago

    trio.run(ask, clock=mock_clock)


# -- migrate -----------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 49)
@pytest.mark.scenario("encryption", 62)
@pytest.mark.scenario("runner", 51)
@pytest.mark.scenario("runner", 57)
@pytest.mark.parametrize("path", ["/docker/migrate", "/encryption/migrate"])
async def test_an_older_cipher_becomes_one_of_the_project(site: Site, path: str) -> None:
    old, plain = vector("legacy_encrypted")
    body = {"a": "b", "c": {"#d": old}}

    answer = await send(
        site, f"{path}?componentId={C}&projectId={P}", body, token="admin", operator=True
    )

    assert answer.status == 202
    assert answer.value["a"] == "b"
    assert list(answer.value) == ["a", "c"]
    assert answer.value["c"]["#d"].startswith("KBC::ProjectSecure::")
    found = await site.engine.encryption.decrypt(answer.value, Scope(C, P))
    assert found == {"a": "b", "c": {"#d": plain}}


@pytest.mark.scenario("encryption", 50)
@pytest.mark.scenario("runner", 52)
async def test_without_a_project_it_becomes_one_of_the_component(site: Site) -> None:
    old, plain = vector("legacy_encrypted")

    answer = await migrate(site, f"componentId={C}", {"#d": old})

    assert answer.status == 202
    assert answer.value["#d"].startswith("KBC::ComponentSecure::")
    assert await site.engine.encryption.decrypt(answer.value, Scope(C)) == {"#d": plain}


@pytest.mark.scenario("encryption", 51)
@pytest.mark.scenario("encryption", 53)
@pytest.mark.scenario("runner", 53)
@pytest.mark.scenario("runner", 55)
@pytest.mark.parametrize(
    ("group", "context"),
    [
        ("legacy_component_encrypted", {"componentId": C}),
        ("legacy_component_project_encrypted", {"componentId": C, "projectId": P}),
    ],
)
async def test_ciphers_of_the_component_and_the_project_migrate(
    site: Site, group: str, context: dict[str, str]
) -> None:
    old, plain = vector(group, **context)
    query = f"componentId={C}&projectId={P}"

    answer = await migrate(site, query, {"#d": old})
    text = await migrate(site, query, old.encode(), type_=TEXT)

    assert (answer.status, text.status) == (202, 200)
    assert text.headers["Content-Type"].startswith("text/plain")
    for cipher in (answer.value["#d"], text.value.decode()):
        assert cipher.startswith("KBC::ProjectSecure::")
        assert await site.engine.encryption.decrypt(cipher, Scope(C, P)) == plain


@pytest.mark.scenario("encryption", 52)
@pytest.mark.scenario("runner", 54)
async def test_a_cipher_of_another_component_is_refused(site: Site) -> None:
    old, _ = vector("legacy_component_encrypted", componentId=C)

    answer = await migrate(site, f"componentId=other&projectId={P}", {"a": [{"#d": old}]})

    assert answer.status == 400
    assert message(answer).startswith(
        "Invalid cipher text for key #d Value KBC::ComponentEncrypted=="
    )


@pytest.mark.scenario("encryption", 54)
@pytest.mark.scenario("runner", 49)
@pytest.mark.parametrize(
    "document",
    [
        {"component": {"a": 1}, "b": [{}]},
        {"#e": "", "#n": None, "#p": "{{ name }}", "#o": {}, "x": "KBC::Encrypted==y"},
        [],
        None,
        {},
    ],
)
async def test_what_holds_no_cipher_comes_back_unchanged(site: Site, document: Any) -> None:
    answer = await migrate(site, f"componentId={C}&projectId={P}&whatever=1", document)

    assert (answer.status, answer.value) == (202, document)


@pytest.mark.scenario("encryption", 55)
@pytest.mark.scenario("runner", 50)
@pytest.mark.scenario("runner", 56)
async def test_the_token_comes_first_then_the_component_then_the_type(site: Site) -> None:
    path = "/docker/migrate"

    without = await send(site, path, b"", type_=None, token=None)
    assert (without.status, message(without)) == (400, "Missing StorageAPI token")
    wrong = await send(site, path, b"", type_=None, token="wrong")
    assert (wrong.status, message(wrong)) == (401, "Invalid StorageApi Token")
    component = await migrate(site, "projectId=1", b"", type_=None)
    assert component.status == 400
    assert message(component) == "Stack id and component id must be entered."
    type_ = await migrate(site, f"componentId={C}", b"wtf", type_=None)
    assert (type_.status, message(type_)) == (400, "Incorrect Content-Type.")
    broken = await migrate(site, f"componentId={C}", b"wtf")
    assert message(broken).startswith("Bad JSON format of request body")


@pytest.mark.scenario("encryption", 56)
async def test_a_configuration_narrows_the_scope(site: Site) -> None:
    old, plain = vector("legacy_encrypted")

    answer = await migrate(site, f"componentId={C}&projectId={P}&configId={F}", {"#d": old})

    assert answer.value["#d"].startswith("KBC::ConfigSecure::")
    assert await site.engine.encryption.decrypt(answer.value, Scope(C, P, F)) == {"#d": plain}
    alone = await migrate(site, f"componentId={C}&configId={F}", {"#d": old})
    assert alone.status == 400
    assert message(alone) == "The configId parameter must be used together with projectId."


@pytest.mark.scenario("encryption", 57)
async def test_t20_a_plain_secret_is_refused_and_not_repeated(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    for body, type_ in (({"#d": "hunter2"}, JSON), (b"hunter2", TEXT), (b'"hunter2"', JSON)):
        answer = await migrate(site, f"componentId={C}", body, type_=type_)
        assert answer.status == 400
        assert "Value is not an encrypted value." in message(answer)
        assert "hunter2" not in json.dumps(answer.value)
    assert "hunter2" not in caplog.text + str([vars(each) for each in caplog.records])


@pytest.mark.scenario("encryption", 58)
async def test_current_ciphers_are_made_anew_and_never_wider(site: Site) -> None:
    encryption = site.engine.encryption
    before = await encryption.encrypt({"#x": "secret"}, Scope(C, P))

    after = await migrate(site, f"componentId={C}&projectId={P}", before)

    assert after.value != before
    assert await encryption.decrypt(after.value, Scope(C, P)) == {"#x": "secret"}
    narrow = await encryption.encrypt({"#x": "secret"}, Scope(C, P, F))
    refused = await migrate(site, f"componentId={C}&projectId={P}", narrow)
    assert refused.status == 400


async def test_t13_no_family_becomes_wider(site: Site) -> None:
    full = {"componentId": C, "projectId": P, "configId": F, "branchType": "dev"}
    needs = {
        "ProjectSecure": ("projectId",),
        "ConfigSecure": ("projectId", "configId"),
        "ProjectWideSecure": ("projectId",),
        "BranchTypeSecure": ("projectId", "branchType"),
        "ProjectWideBranchTypeSecure": ("projectId", "branchType"),
        "BranchTypeConfigSecure": ("projectId", "configId", "branchType"),
    }
    for family, ids in needs.items():
        cipher = await site.engine.encryption.encrypt(
            "secret", Scope(C, P, F, "dev"), family=family
        )
        for left_out in ids:
            given = "&".join(f"{name}={value}" for name, value in full.items() if name != left_out)
            answer = await migrate(site, given, str(cipher).encode(), type_=TEXT)
            assert answer.status == 400, (family, left_out)
        everything = "&".join(f"{name}={value}" for name, value in full.items())
        answer = await migrate(site, everything, str(cipher).encode(), type_=TEXT)
        assert answer.value.startswith(b"KBC::BranchTypeConfigSecure::"), family


@pytest.mark.scenario("encryption", 59)
async def test_t15_a_foreign_project_is_the_operators_only(site: Site) -> None:
    old, _ = vector("legacy_encrypted")

    refused = await migrate(site, f"componentId={C}&projectId={P}", {"#d": old}, operator=False)
    assert refused.status == 403
    assert old not in json.dumps(refused.value)
    wrong = await site.ask(
        "POST",
        f"/docker/migrate?componentId={C}&projectId={P}",
        {"#d": old},
        headers={"X-Vaka-Operator-Token": "no operator's secret"},
    )
    assert wrong.status == 403
    own = (await site.engine.catalog.projects())[0].id
    mine = await migrate(site, f"componentId={C}&projectId={own}", {"#d": old}, operator=False)
    assert mine.status == 202


@pytest.mark.scenario("encryption", 60)
@pytest.mark.parametrize("secret", ["KBC::Encrypted==x", "{{ x }}", "KBC::ProjectSecure::v1.x"])
async def test_t14_a_secret_that_looks_like_a_cipher_stays_secret(site: Site, secret: str) -> None:
    encryption = site.engine.encryption
    cipher = await encryption.encrypt_bytes(secret.encode(), Scope(C, P))

    answer = await migrate(site, f"componentId={C}&projectId={P}", {"#d": cipher})
    text = await migrate(site, f"componentId={C}&projectId={P}", cipher.encode(), type_=TEXT)

    for found in (answer.value["#d"], text.value.decode()):
        assert found.startswith("KBC::ProjectSecure::v1.")
        assert found not in {secret, cipher}
        assert await encryption.decrypt_bytes(found, Scope(C, P)) == secret.encode()


@pytest.mark.scenario("encryption", 61)
async def test_one_bad_cipher_spoils_all(site: Site) -> None:
    good = await site.engine.encryption.encrypt({"#a": "1", "#b": "2"}, Scope(C, P))
    body = {**dict(good), "deep": [{"#bad": "KBC::ProjectSecure::v1.AAAA"}]}

    answer = await migrate(site, f"componentId={C}&projectId={P}", body)

    assert answer.status == 400
    assert message(answer).startswith("Invalid cipher text for key #bad ")
    assert good["#a"] not in json.dumps(answer.value)


@pytest.mark.scenario("encryption", 93)
@pytest.mark.parametrize("prefix", sorted(set(PREFIXES) - WRITTEN_PREFIXES))
async def test_known_prefixes_without_a_reader_pass_and_are_refused(
    tmp_path: Path, host: FakeHost, prefix: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ring.write(home / "keys", ring.new_ring("first"), create=True)
    settings = Settings(home=home, shutdown="stop")
    async with Engine(settings.engine, plugins=[runtime_plugin(host)]) as engine:
        site = await make_site(engine, settings, host)
        body = {"#d": f"{prefix}anything"}

        passed = await send(site, f"/docker/encrypt?componentId={C}", body)
        refused = await send(site, f"/docker/migrate?componentId={C}", body, token="admin")

    assert (passed.status, passed.value) == (200, body)
    assert refused.status == 400


async def test_numbers_that_are_no_secrets_stay_as_written_when_migrated(site: Site) -> None:
    cipher = await site.engine.encryption.encrypt("x", Scope(C))
    raw = f'{{"n":1.50,"big":12345678901234567890123,"#x":{json.dumps(cipher)}}}'

    _, text = await answered(site, f"/docker/migrate?componentId={C}", raw)
    assert text.startswith('{"n":1.50,"big":12345678901234567890123,"#x":"KBC::ComponentSecure::')
    assert load_json(text)


# -- the vault and credentials ---------------------------------------------------------------------


async def test_secrets_of_the_vault_are_encrypted_on_the_way_in(site: Site) -> None:
    project = (await site.engine.catalog.projects())[0].id

    made = await site.ask("PUT", "/vaka/vault/x", {"value": "hunter2", "isEncrypted": True})

    assert made.status == 200
    assert made.value["value"].startswith("KBC::ProjectWideSecure::")
    kept = made.value["value"]
    assert await site.engine.encryption.decrypt(kept, Scope("any", project)) == "hunter2"
    again = await site.ask("PUT", "/vaka/vault/x", {"value": kept, "isEncrypted": True})
    assert again.value["value"] == kept
    looks = await site.ask("PUT", "/vaka/vault/y", {"value": "{{ x }}", "isEncrypted": True})
    assert looks.value["value"].startswith("KBC::ProjectWideSecure::")
    open_ = await site.ask("PUT", "/vaka/vault/z", {"value": "hunter2"})
    assert open_.value["value"] == "hunter2"


async def test_secrets_of_credentials_are_encrypted_on_the_way_in(site: Site) -> None:
    project = (await site.engine.catalog.projects())[0].id
    path = "/vaka/oauth/C/main"

    assert (await site.ask("PUT", path, {"id": "main", "#data": "hunter2"})).status == 204

    kept = await site.get(path)
    assert kept["id"] == "main"
    assert kept["#data"].startswith("KBC::ProjectSecure::")
    assert await site.engine.encryption.decrypt(kept, Scope("C", project)) == {
        "id": "main",
        "#data": "hunter2",
    }
