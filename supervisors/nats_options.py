"""From `[nats]` to what nats-py takes."""

import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amends.values.errors import BadConfiguration
from supervisors.paths import file_fault
from supervisors.settings import Settings

KEYS = ("creds_file", "nkey_seed_file")  # nats-py signs with them by a package that it does not bring


def nats_options(settings: Settings) -> dict[str, Any]:
    """nats-py's options from `[nats]`."""
    found = settings.nats
    pairs = {
        "user": found.user, "password": found.password, "token": found.token,
        "user_credentials": found.creds_file, "nkeys_seed": found.nkey_seed_file,
    }  # fmt: skip
    options: dict[str, Any] = {name: value for name, value in pairs.items() if value}
    for key in KEYS:
        named = getattr(found, key)
        if named and (why := file_fault(Path(named))):
            raise BadConfiguration(f"[nats].{key}: the file {named!r} cannot be read: {why}")
        if named and find_spec("nkeys") is None:
            raise BadConfiguration(
                f"[nats].{key} needs the package nkeys, which is not installed here: pip install nkeys"
            )
    if found.tls_ca_file or found.tls_cert_file:
        try:
            tls = ssl.create_default_context(cafile=found.tls_ca_file or None)
            if found.tls_cert_file:
                tls.load_cert_chain(found.tls_cert_file, found.tls_key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise BadConfiguration(f"[nats] tls_ca_file, tls_cert_file, tls_key_file: {error}") from None
        options["tls"] = tls
    return options
