"""The runtime's own key to the nodes, where one is configured."""

from pathlib import Path

import asyncssh

from tests.acceptance.test_configuration import run


def configured(state_dir: Path, text: str) -> Path:
    """A configuration file beside the state directory."""
    file = state_dir.parent / "amends.toml"
    file.write_text(f'profile = "acceptance"\nstate_dir = "{state_dir}"\n[http]\nlisten = "127.0.0.1:0"\n{text}')
    return file


async def test_a_key_that_cannot_be_used_is_refused_with_its_name(state_dir: Path) -> None:
    locked = state_dir.parent / "locked"
    locked.write_bytes(
        asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", passphrase="secret")
    )
    for path in (locked, state_dir.parent / "missing"):
        file = configured(state_dir, f'[ssh]\nclient_key = "{path}"\n')
        status, said = await run(["--config", str(file)])
        assert (status, "Traceback" in said, "[ssh].client_key" in said, str(path) in said) == (2, False, True, True)
