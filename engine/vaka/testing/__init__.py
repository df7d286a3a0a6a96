"""What tests of plugins and embedders are made of: fakes, and a contract suite per interface.

A contract suite is a class to inherit from; pytest runs the inherited tests. All of it needs pytest
and pytest-trio.
"""

import pytest

# before the imports below: an assertion that fails in a suite then shows its values
pytest.register_assert_rewrite(
    "vaka.testing.catalog",
    "vaka.testing.catalog_versions",
    "vaka.testing.encryptor_contract",
    "vaka.testing.mapping",
    "vaka.testing.runtime_contract",
)

from vaka.testing.clock import thread_aware  # noqa: E402
from vaka.testing.encryptor_contract import EncryptorContract  # noqa: E402
from vaka.testing.mapping import MappingBackendContract  # noqa: E402
from vaka.testing.runtime import (  # noqa: E402
    FakeHost,
    FakeImage,
    FakeRuntime,
    Printed,
    Script,
    host_path,
    image_id,
    shell,
)
from vaka.testing.runtime_contract import ContainerRuntimeContract, SpecFor  # noqa: E402

__all__ = [
    "ContainerRuntimeContract",
    "EncryptorContract",
    "FakeHost",
    "FakeImage",
    "FakeRuntime",
    "MappingBackendContract",
    "Printed",
    "Script",
    "SpecFor",
    "host_path",
    "image_id",
    "shell",
    "thread_aware",
]
