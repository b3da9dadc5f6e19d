"""What all settings have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asrkern._optional import require

if TYPE_CHECKING:
    import pydantic
else:
    pydantic = require("pydantic", "recognizer")


class Settings(pydantic.BaseModel):
    """Settings with checked types. They cannot be changed, and unknown keys are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
