"""Tables for credentials: those that several tables share, and those of one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import SecretStr

from ._tables import Table
from ._values import problem


class Credentials(Table):
    """Credentials that several backends share. A backend refers to them by name."""

    access_key_id: SecretStr | None = None
    """S3 and KMS: the id of the access key."""
    secret_access_key: SecretStr | None = None
    """S3 and KMS: the secret of the access key."""
    session_token: SecretStr | None = None
    """S3 and KMS: the session token of temporary credentials."""
    profile: str | None = None
    """S3 and KMS: a profile of the shared configuration files of the AWS SDK."""
    role_arn: str | None = None
    """S3 and KMS: a role to assume."""
    file: str | None = None
    """Google Cloud Storage: the path of a service account's JSON file."""

    def of_aws(self, name: str) -> dict[str, Any]:
        """Return the arguments for S3 and KMS."""
        if "file" in self.model_fields_set:
            raise problem(
                f"the credentials {name!r} have 'file', which is for Google Cloud Storage"
            )
        return self.options()

    def of_google(self, name: str) -> str:
        """Return the path for Google Cloud Storage."""
        if self.file is None or self.model_fields_set != {"file"}:
            raise problem(f"the credentials {name!r} must have 'file' and nothing else")
        return self.file


SharedCredentials: TypeAlias = Mapping[str, Credentials]
"""The credentials by name."""


def find_credentials(shared: SharedCredentials, name: str) -> Credentials:
    """Return the credentials of a name.

    Raises:
        PydanticCustomError: There are none.
    """
    if name not in shared:
        known = ", ".join(map(repr, sorted(shared))) or "none"
        raise problem(f"there are no credentials {name!r}: [credentials] defines {known}")
    return shared[name]


class AwsIdentity(Table):
    """The credentials of a table for S3 or KMS."""

    credentials: str | None = None
    """The name of a table in ``[credentials]``."""
    access_key_id: SecretStr | None = None
    """The id of the access key. Without any credentials, the SDK's default chain applies."""
    secret_access_key: SecretStr | None = None
    """The secret of the access key."""
    session_token: SecretStr | None = None
    """The session token of temporary credentials."""
    profile: str | None = None
    """A profile of the shared configuration files of the SDK."""
    role_arn: str | None = None
    """A role to assume."""

    def shared_options(self, shared: SharedCredentials) -> dict[str, Any]:
        """Return the arguments in the credentials that `credentials` names, if it names any.

        Raises:
            PydanticCustomError: They do not exist, or are not for AWS.
        """
        if self.credentials is None:
            return {}
        return find_credentials(shared, self.credentials).of_aws(self.credentials)
