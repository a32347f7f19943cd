"""Same seed, same turns on every Python that Amends runs on: `./run interpreters` (needs the network the first time).

For each interpreter found it makes an environment below `build/interpreters` with msgspec alone, which is all that the
simulated world needs, and compares the digests. Those that are made are compared by the tests as well, offline.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MADE: Final = ROOT / "build" / "interpreters"
VERSIONS: Final = ("3.11", "3.12", "3.13")
ASK: Final = "from tests.simulated.seeded import digests; print(*digests())"


def prepared() -> list[str]:
    """The interpreters that have an environment already."""
    return sorted(str(python) for python in MADE.glob("*/bin/python"))


def interpreters() -> dict[str, str]:
    """By version, those that run here: on the path, or as pyenv keeps them."""
    found = {}
    for version in VERSIONS:
        places = [
            shutil.which(f"python{version}"),
            *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        ]
        for place in places:
            if place and _runs(place, version):
                found[version] = place
                break
    return found


def _runs(python: str, version: str) -> bool:
    """A shim of pyenv is found and fails where its version is not chosen."""
    ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def make(version: str, python: str) -> str:
    """An environment of that interpreter with msgspec as pinned; returns its interpreter."""
    place = MADE / version
    made = place / "bin" / "python"
    if not made.exists():
        subprocess.run([python, "-m", "venv", "--clear", str(place)], check=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
            pins.write(_pin("msgspec"))
            pins.flush()
            install = [str(made), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--require-hashes"]
            subprocess.run([*install, "-r", pins.name], check=True)
    return str(made)


def _pin(package: str) -> str:
    """What `constraints.txt` says of a package, hashes included."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{package}=="))
    end = next(number for number in range(start, len(lines)) if not lines[number].endswith("\\"))
    return "\n".join(lines[start : end + 1]) + "\n"


def main() -> int:
    """Compare all; 1 if they differ."""
    said = {}
    for version, python in interpreters().items():
        ask = [make(version, python), "-c", ASK]
        env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        said[version] = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=ROOT, env=env).stdout
        print(f"{version}: {said[version].split()[0][:16]}…")
    if len(set(said.values())) != 1:
        print("they differ")
        return 1
    print(f"the same turns on {', '.join(said)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
