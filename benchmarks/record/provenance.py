"""Under what a fit was made: commit, date, versions, machine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("jax", "numpyro", "numpy")


def describe(processes: int) -> dict[str, Any]:
    """Of a fit that begins now, with so many at a time."""
    import bbvi

    versions = {"python": platform.python_version(), "bbvi": bbvi.__version__}
    return {
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "versions": versions | {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "processes": processes,
        "load": round(os.getloadavg()[0], 2),  # of the last minute, by all that the machine does
    }


def commit() -> str:
    """Of the sources, with a + where tracked files differ from it; "unknown" for sources without a repository."""
    git = ["git", "-C", str(ROOT)]
    if not (ROOT / ".git").exists():
        return "unknown"
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    status = [*git, "status", "--porcelain", "--untracked-files=no"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    return name.strip() + ("+" if changed.strip() else "")


def machine() -> str:
    """The processor, and how many cores of it there are."""
    path, model = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if path.exists():
        names = [line.split(":", 1)[1].strip() for line in path.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores"
