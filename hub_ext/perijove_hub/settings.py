"""The operator's settings, from ``PERIJOVE_*`` variables and ``DIR/perijove.yaml`` (variables win)."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from perijove.model import FieldError, OperatorError, parse_duration, parse_size
from perijove.model.validation import field_errors
from perijove_hub.auth.configuration import LoginSettings
from perijove_hub.policy.volumes import HOME, wrong_path, wrong_target
from perijove_hub.secrets.registries import RegistrySetting
from perijove_hub.users.configuration import GuestSettings, MailSettings, UidRange

NOTEBOOK_IMAGE = "perijove-notebook:latest"
_REPOSITORY = re.compile(r"(:[^/:@]*)?(@.*)?$")
"""What stands after the repository in a reference of an image."""


def default_state() -> Path:
    """Where all state lies unless said otherwise: of the system for root, else under the home."""
    given = os.environ.get("PERIJOVE_STATE")
    return Path(given) if given else usual_state()


def usual_state() -> Path:
    """Where it lies when nothing is said."""
    if os.geteuid() == 0:
        return Path("/var/lib/perijove")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "perijove"


_DURATIONS = (
    "max_time",
    "grace",
    "reconcile_every",
    "lease",
    "shared_idle",
    "store_collect",
    "longest_token",
)


class VolumeSetting(BaseModel):
    """A directory of the nodes that jobs may ask for by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """Path on the node; ``{user}``, ``{project}`` and ``{home}`` are replaced."""
    target: str
    """Path in the job; likewise. Plain processes see the source instead."""
    read_only: bool = False
    users: list[str] = ["*"]
    """Names or patterns of who may ask for it."""


class ManagedAccount(BaseModel):
    """A user without a system account, whose home Perijove keeps under ``DIR/homes``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: Annotated[int, Field(ge=1000)]
    gid: Annotated[int, Field(ge=1000)]


class Settings(BaseSettings):
    """All that an operator may set. Every field is also a variable: ``PERIJOVE_DEFAULT_IMAGE`` and so on."""

    model_config = SettingsConfigDict(env_prefix="PERIJOVE_", extra="forbid", env_nested_delimiter="__")

    state: Path = Field(default_factory=default_state)
    """The directory of all state."""
    mode: Literal["hub", "single"] = "single"
    """``hub``: users are JupyterHub's. ``single``: the user who runs the service is the only one."""
    prefix: str = ""
    """URL path before ``/api/v1``; behind a hub ``/services/perijove``."""
    listen: Annotated[list[str], NoDecode] = ["127.0.0.1:8008"]
    """``host:port`` to listen on; as a variable, separated by commas."""
    proxies: Annotated[list[str] | None, NoDecode] = None
    """Addresses or networks of proxies whose word (``X-Forwarded-For``) on where a request came from counts;
    as a variable, separated by commas. By default this host's own in mode ``hub``, else none."""
    public_url: str = ""
    """Where others reach this service, told by those that stand by; by default the first of ``listen``."""
    database_url: str | None = None
    """``postgresql+psycopg://USER:PASSWORD@HOST/NAME``; by default an SQLite file in the state directory."""
    lease: float = 10.0
    """Seconds after which another service takes over from one that is silent."""
    scheduler: str = ""
    """Address of the Dask scheduler, for example ``tls://127.0.0.1:8786``."""

    store: str = ""
    """Folder or URL of the content store that service and nodes share, ``s3://BUCKET/PREFIX`` for example; by
    default a folder of the state directory."""
    store_options: dict[str, Any] = {}
    """What its filesystem takes (of fsspec, for S3 of s3fs): ``endpoint_url``, ``key``, ``secret``. Without
    it S3 takes what the usual variables and files of AWS say."""
    store_quota: int | None = None
    """Bytes that the store may take; what is put beyond is refused. No limit by default."""
    store_collect: float | None = None
    """How long what nothing needs stays in the store, at least an hour. Nothing is removed by default."""

    default_image: str = NOTEBOOK_IMAGE
    """Image of jobs that name none, where the launcher runs containers."""
    images: list[str] = []
    """Patterns of images users may ask for, beside those of the policy. Empty: in mode ``single`` any, else
    those of the default image's repository, and archives (``archive:*``)."""
    default_launcher: str | None = None
    """Launcher of jobs that name none; by default the first that a node offers."""
    networks: list[str] = []
    """Networks that users may ask for: ``none``, ``bridge``, ``user``, ``project``, ``host``. Empty: in mode
    ``single`` any, else all but ``host``, from where a container reaches what listens on the node for itself
    alone. Whom the policy grants it may have ``host`` all the same."""
    volumes: dict[str, VolumeSetting] = {}
    """Volumes beside ``home``; the policy may have more."""
    registries: dict[str, RegistrySetting] = {}
    """Logins at image registries, by ``HOST`` or ``HOST:PORT``, for everybody who has none of their own."""
    secret_key_file: Path | None = None
    """The keys that secrets are encrypted with, one a line, the first encrypts; by default ``secrets.key`` in
    the state directory, made when first needed."""
    accounts: dict[str, ManagedAccount] = {}
    """Users without a system account."""
    uids: UidRange = UidRange()
    """The uids of other users without a system account ([People](people.md))."""
    guests: GuestSettings = GuestSettings()
    """On which accounts guests work, and within which bounds."""
    mail: MailSettings | None = None
    """By which server administrators and leads are told of guests who wait; nobody is, by default."""
    login: LoginSettings = LoginSettings()
    """How people log in: providers, directories, local accounts ([Logging in](login.md))."""
    admins: list[str] = []
    """Users who may see and end everybody's jobs, beside JupyterHub's administrators."""
    longest_token: float = 366 * 86400.0
    """How long an API token may be valid; those that say nothing are for 90 days."""

    max_time: float | None = None
    """Longest time limit, and that of jobs that name none; none by default."""
    grace: float = 10.0
    """Between the polite signal and SIGKILL when a job is stopped, seconds."""
    max_pending: int = 1_000_000
    """Jobs that may wait at once, over all users."""
    max_body: int = 8 << 20
    """Largest request but for uploads."""
    max_upload: int = 4 << 30
    """Largest uploaded input."""
    reconcile_every: float = 30.0
    """Seconds between two comparisons of the database with what the nodes run."""
    shared_idle: float = 30.0
    """Seconds after which a job that makes the calls of shared functions ends when there are none."""

    @classmethod
    def read(cls, state: Path | None = None) -> Settings:
        """The settings of the state directory, by default that of the variables.

        Raises :class:`~perijove.model.OperatorError` naming each field that is wrong. What was given is
        shown of plain fields only: sections hold secrets.
        """
        try:
            return cls() if state is None else cls(state=state.absolute())
        except ValidationError as error:
            found = [
                f"{wrong.field}: {'' if _may_be_secret(wrong) else wrong.value + ': '}{wrong.message}"
                for wrong in field_errors(error, cls)
            ]
        except yaml.YAMLError as error:
            found = [f"perijove.yaml is not YAML: {error}"]
        raise OperatorError("settings:\n  " + "\n  ".join(found))

    @field_validator("listen", "proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("proxies")
    @classmethod
    def _networks(cls, value: list[str] | None) -> list[str] | None:
        for one in value or ():
            ip_network(one)
        return value

    @field_validator("max_body", "max_upload", mode="before")
    @classmethod
    def _size(cls, value: Any) -> int:
        return parse_size(value)

    @field_validator("store_quota", mode="before")
    @classmethod
    def _quota(cls, value: Any) -> int | None:
        return None if value is None else parse_size(value)

    @field_validator("volumes")
    @classmethod
    def _volumes(cls, value: dict[str, VolumeSetting]) -> dict[str, VolumeSetting]:
        for name, volume in value.items():
            if name == HOME:
                raise ValueError(f"the volume {HOME} is everybody's own; give this one another name")
            if said := wrong_path(volume.source) or wrong_target(volume.target):
                raise ValueError(f"{name}: {said}")
        return value

    @model_validator(mode="after")
    def _place(self) -> Self:
        self.store = self.store or f"file://{(self.state / 'store').absolute()}"
        return self

    @field_validator(*_DURATIONS, mode="before")
    @classmethod
    def _duration(cls, value: Any) -> float | None:
        return None if value is None else parse_duration(value)

    @property
    def database(self) -> Path:
        """The SQLite file, where no other database is set."""
        return self.state / "perijove.db"

    @property
    def database_at(self) -> str:
        """SQLAlchemy's URL of the database."""
        return self.database_url or f"sqlite:///{self.database.absolute()}"

    @property
    def trusted_proxies(self) -> list[str]:
        """Proxies whose ``X-Forwarded-For`` counts."""
        return (["127.0.0.1", "::1"] if self.mode == "hub" else []) if self.proxies is None else self.proxies

    @property
    def secret_keys(self) -> Path:
        """The file of the keys that secrets are encrypted with."""
        return self.secret_key_file or self.state / "secrets.key"

    @property
    def own_url(self) -> str:
        """Where others reach this service."""
        return self.public_url or f"http://{self.listen[0]}{self.prefix}"

    @property
    def tls(self) -> Path:
        """Directory of the key and certificate of the Dask links."""
        return self.state / "tls"

    @property
    def allowed_images(self) -> list[str]:
        """Patterns in force."""
        if self.images:
            return [*self.images, self.default_image]
        if self.mode == "single":
            return ["*"]
        return [f"{_REPOSITORY.sub('', self.default_image)}:*", "archive:*"]

    @property
    def allowed_networks(self) -> list[str]:
        """Those in force for containers."""
        usual = ["none", "bridge", "user", "project"]
        return self.networks or [*usual, *(["host"] if self.mode == "single" else [])]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then the file in the state directory."""
        given = init_settings().get("state") or default_state()
        yaml = YamlConfigSettingsSource(settings_cls, yaml_file=Path(given) / "perijove.yaml")
        return init_settings, env_settings, yaml


def _may_be_secret(wrong: FieldError) -> bool:
    words = ("secret", "password", "key", "options", "url")
    return not wrong.value or wrong.value[0] in "{[" or any(word in wrong.field for word in words)
