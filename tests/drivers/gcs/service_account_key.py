"""The key file of a fictitious service account."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL = "signer@project.iam.gserviceaccount.com"


@cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    formats = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    return key.private_bytes(*formats).decode()


def service_account_key(token_uri: str = "https://oauth2.googleapis.com/token") -> dict[str, str]:
    """Return the content of the service account's key file."""
    return {
        "type": "service_account",
        "project_id": "project-of-the-key",
        "private_key_id": "1",
        "private_key": _private_key(),
        "client_email": EMAIL,
        "client_id": "1",
        "token_uri": token_uri,
    }
