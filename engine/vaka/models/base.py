"""What every model of a thing that crosses a border has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen and strict about its keys: a value that exists is valid and stays so."""

    model_config = ConfigDict(frozen=True, extra="forbid")
