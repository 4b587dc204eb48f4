"""Settings of the site, and who set them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.base.settings import Origin, Value
from holdfast.control.access import Principal, Verb
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model

router = make_router("Settings")


class Setting(Model):
    """One thing that is set."""

    key: str = Field(description="Table and name in `config.toml`.", examples=["jobs.slots"])
    value: str | None = Field(description="Null where it is secret.", examples=["2"])
    origin: Origin = Field(description="Who set it.")
    variable: str = Field(
        description="What overrides it in the environment.", examples=["HOLDFAST_JOBS_SLOTS"]
    )
    meaning: str = Field(examples=["jobs that the storage unit takes at once"])

    @classmethod
    def of(cls, value: Value) -> Setting:
        """As it was read when the site was opened."""
        setting = value.setting
        hidden = setting.secret and value.text
        return cls(
            key=setting.key,
            value=None if hidden else value.text,
            origin=value.origin,
            variable=setting.variable,
            meaning=setting.meaning,
        )


class Settings(Model):
    """Everything that is set."""

    items: list[Setting]


@router.get("/settings")
def list_settings(
    _: Annotated[Principal, may(Verb.CONFIGURE, Verb.SEE)], master: TheMaster
) -> Settings:
    """Every setting, by whom it was set, as the site has it since it was started."""
    return Settings(items=[Setting.of(one) for one in master.settings.values()])
