"""A machine of its own on this one: a stock sshd with its own processes, accounts, homes and one small disk.

Mount and process namespaces, so it needs root; what is done inside ends with it.
"""

import asyncio
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import asyncssh

from adapters.embedded.ports import free_port
from tests.adapters.ssh.machines import COPY_ETC, SSHD
from tests.parallel import first_uid
from tests.patience import PATIENCE_S

DISK_MB = 24  # /etc, /home and /var/lib/amends together
ACCOUNTS = COPY_ETC.format(to='"$1/etc"')
ENTER = f"""
mount -t tmpfs -o size={DISK_MB}m,mode=755 disk "$1"
for each in etc home var/lib/amends; do
    mkdir -p "$1/$each" "/$each"
    [ "$each" != etc ] || {{ {ACCOUNTS}; }}
    mount --bind "$1/$each" "/$each"
done
echo "$2" >/var/lib/amends/last-uid
shift 2
exec "$@"
"""


class Box:
    """One such machine; `key` is the line that its root accepts."""

    def __init__(self, directory: Path, key: str) -> None:
        directory.mkdir()
        (directory / "disk").mkdir()
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        host_key.write_private_key(directory / "host_key")
        (directory / "host_key").chmod(0o600)
        (directory / "root.pub").write_text(key + "\n")
        self.port, self.host_key = free_port(), host_key.export_public_key().decode().strip()
        config = directory / "sshd_config"
        config.write_text(
            f'ListenAddress 127.0.0.1\nPort {self.port}\nHostKey "{directory}/host_key"\nPidFile none\nUsePAM no\n'
            f'StrictModes no\nMatch User root\n    AuthorizedKeysFile "{directory}/root.pub"\n'
            f'    SetEnv HOME="{directory}"\n'  # root's start files are not this machine's
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._log = (directory / "log").open("wb")
        self._enter = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
                       "--mount-proc", "sh", "-ec", ENTER, "sh", str(directory / "disk"), str(first_uid())]  # fmt: skip
        assert SSHD is not None
        self._sshd = self._start([*self._enter, SSHD, "-D", "-e", "-f", str(config)])
        self._inside: list[subprocess.Popen[bytes]] = []

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    async def ready(self) -> None:
        """Wait until its sshd listens."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                    return
                assert self._sshd.poll() is None, Path(self._log.name).read_text()
                await asyncio.sleep(0.02)

    def run(self, *command: str) -> None:
        """Start a program inside, beside the sshd, until the box ends."""
        children = Path(f"/proc/{self._sshd.pid}/task/{self._sshd.pid}/children").read_text().split()
        self._inside.append(self._start(["nsenter", "--target", children[0], "--mount", "--pid", *command]))

    def output(self, *command: str) -> str:
        """What a command inside says; it must succeed."""
        children = Path(f"/proc/{self._sshd.pid}/task/{self._sshd.pid}/children").read_text().split()
        enter = ["nsenter", "--target", children[0], "--mount", "--pid", *command]
        return subprocess.run(enter, check=True, capture_output=True, text=True, timeout=30).stdout

    def stop(self) -> None:
        """End it and all that runs inside."""
        for process in (*self._inside, self._sshd):
            process.kill()
            process.wait()
        self._log.close()
