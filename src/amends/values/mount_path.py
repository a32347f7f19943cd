"""Where an attachment may be mounted: one rule for who accepts a path and for who mounts there. Knows no machine."""

from typing import Final

MAX_PATH_BYTES: Final = 4096
HOMES: Final = ("/home", "/root")
SYSTEM: Final = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")


def refusal(mount_path: str) -> str:
    """Why nothing is mounted there, naming the field; empty if it may be."""
    why = _wrong(mount_path)
    return f"mount_path {why}" if why else ""


def inside(path: str, folder: str) -> bool:
    """Whether a path is that folder or below it."""
    return (path + "/").startswith(folder.rstrip("/") + "/")


def _wrong(path: str) -> str:
    if len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES} bytes"
    if not path.startswith("/"):
        return "must be absolute"
    if not path.isprintable():
        return "has characters that cannot be shown"
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        return "must be written plainly: not '/', no '..', '.', '//' or '/' at its end"
    if home := next((home for home in HOMES if inside(path, home)), ""):
        return f"lies in {home}, and a mount never lies in a home"
    if folder := next((folder for folder in SYSTEM if inside(path, folder)), ""):
        return f"lies in {folder}, which is the system's"
    return ""
