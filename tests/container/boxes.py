"""Images built by Debian's buildah, and processes in them, without a registry or a daemon.

What is real: the Dockerfile, the image with its configuration (entry point, environment), its files read-only, a tmpfs
for /tmp, volumes by bind mounts, an arbitrary user without capabilities whose process is number 1 of its own. What is
not: network and control groups are this machine's, since there is no container runtime that could make others.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("buildah", "debootstrap", "unshare", "setpriv", "chroot")
PACKAGES = "python3,python3-venv,ca-certificates"
SOMEBODY = 54321  # a user that nothing in the image knows, as OpenShift gives
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Image:
    """A built image: its files, mounted, and its configuration as Docker has it."""

    target: str
    files: Path
    config: dict[str, Any]
    size: int
    seconds: float

    @property
    def site_packages(self) -> Path:
        (found,) = self.files.glob("opt/plumbline/lib/python3*/site-packages")
        return found


class Workshop:
    """Builds images in a storage of its own, which :meth:`close` takes away."""

    def __init__(self, folder: Path) -> None:
        missing = [one for one in PROGRAMS if shutil.which(one) is None]
        if missing or os.geteuid() != 0:
            pytest.skip(f"images are built as root with Debian's {', '.join(PROGRAMS)}; missing: {missing or 'root'}")
        self._folder = folder
        (folder / "cache").mkdir(parents=True)
        driver = "overlay" if _overlays(folder / "probe") else "vfs"
        self._storage = [
            "--root",
            str(folder / "storage"),
            "--runroot",
            str(folder / "run"),
            "--storage-driver",
            driver,
        ]
        self._base()

    def build(self, target: str) -> Image:
        """Build one target; what other targets share with it is built once."""
        started = time.monotonic()
        tag = f"localhost/plumbline-{target}"
        self._bud(target, ROOT, "--quiet", "--tag", tag)
        seconds = time.monotonic() - started
        files = Path(self._buildah("mount", self._buildah("from", "--pull-never", tag)))
        details = json.loads(self._buildah("inspect", "--type", "image", tag))
        return Image(target, files, details["Docker"]["config"], _size(files), seconds)

    def steps_after_a_change(self, target: str, folder: Path, changed: str) -> list[str]:
        """The steps of the Dockerfile that run again after a change of one file, in a copy of the project."""
        for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt"):
            folder.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, folder)
        for name in ("plumbline", "service", "export", "monitoring"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / changed).open("a") as file:
            file.write("# changed\n")
        said = self._bud(target, folder).splitlines()
        following = [*said[1:], ""]
        return [
            one for one, after in zip(said, following, strict=True) if " STEP " in one and "Using cache" not in after
        ]

    def _bud(self, target: str, folder: Path, *options: str) -> str:
        return self._buildah(
            "bud",
            "--layers",
            "--format",
            "docker",
            "--network",
            "host",
            *self._pip(),
            *options,
            "--build-arg",
            "BASE_IMAGE=localhost/base",
            "--target",
            target,
            str(folder),
        )

    def close(self) -> None:
        """Unmount and delete everything."""
        self._buildah("umount", "--all")
        self._buildah("rm", "--all")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _base(self) -> None:
        """What the registry's slim Python is for others: Debian with Python, and nothing else."""
        files = self._folder / "base"
        log = self._folder / "debootstrap.log"
        with log.open("wb") as output:
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", files],
                stdout=output,
                stderr=output,
                check=False,
            )
        assert done.returncode == 0, log.read_text()[-2000:]
        for litter in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(files / litter)
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(files), "/")
        self._buildah("commit", "--quiet", container, "localhost/base")
        self._buildah("rm", container)
        shutil.rmtree(files)

    def _pip(self) -> list[str]:
        """How pip reaches its index in the build: as it does here, by a pip.conf that only the build sees."""
        listed = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
        options = {"cache-dir": "/var/cache/pip"}
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            if (option := name.rpartition(".")[2]) in ("index-url", "extra-index-url", "find-links", "cert", "timeout"):
                options[option] = shlex.split(value)[0]
        (self._folder / "pip.conf").write_text(
            "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
        )
        mounts = {str(self._folder / "pip.conf"): "/etc/pip.conf:ro", str(self._folder / "cache"): "/var/cache/pip:rw"}
        if CERTIFICATES.exists():
            mounts[str(CERTIFICATES)] = f"{CERTIFICATES}:ro"
        places = " ".join(options.get(one, "") for one in ("extra-index-url", "find-links", "index-url")).split()
        for place in places:
            url = urlsplit(place)
            if url.scheme in ("", "file"):  # an index of files refers to what lies beside it
                folder = Path(url.path).parent if url.scheme else Path(url.path)
                mounts[str(folder)] = f"{folder}:ro"
        return [part for source, target in mounts.items() for part in ("--volume", f"{source}:{target}")]

    def _buildah(self, *arguments: str) -> str:
        done = subprocess.run(
            ["buildah", *self._storage, *arguments],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"buildah {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()


@dataclass
class Box:
    """A process in an image, which has its own process numbers and its own view of the files."""

    outside: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Of the image's process 1, as this machine counts."""
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children").read_text().split()
        return int(children[0])

    def memory(self) -> float:
        """Resident memory in MB."""
        (line,) = [one for one in Path(f"/proc/{self.pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def send(self, number: int) -> None:
        os.kill(self.pid, number)


@contextlib.contextmanager
def box(
    image: Image,
    log: Path,
    *command: str,
    volumes: Mapping[str, tuple[Path, str]] | None = None,
    environment: Mapping[str, str] | None = None,
    user: int = SOMEBODY,
    network: bool = True,
    entrypoint: Sequence[str] | None = None,
) -> Iterator[Box]:
    """Start the image's entry point with ``command``, or else with its own; ended with SIGKILL if it still runs.

    ``volumes`` are {place in the image: (folder, "ro" or "rw")}; ``log`` gets standard output and error.
    """
    inside = [*(image.config["Entrypoint"] if entrypoint is None else entrypoint), *(command or image.config["Cmd"])]
    variables = [*image.config["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
    files = shlex.quote(str(image.files))
    script = [f"mount --bind {files} {files}", f"mount -t tmpfs -o mode=1777 tmpfs {files}/tmp"]
    script += [f"mount -t proc proc {files}/proc", f"mount --rbind /dev {files}/dev"]
    for place, (folder, mode) in (volumes or {}).items():
        target = f"{files}{place}"
        script += [f"mkdir -p {target}", f"mount --bind {shlex.quote(str(folder))} {target}"]
        script += [f"mount -o remount,bind,{mode} {target}"]
    script += [f"mount -o remount,bind,ro {files}", f"cd {files}"]
    start = ["setpriv", "--no-new-privs", "chroot", f"--userspec={user}:0", "--groups=", str(image.files)]
    script += ["exec " + shlex.join([*start, "/usr/bin/env", "--ignore-environment", *variables, *inside])]
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
    with log.open("ab") as output:
        process = subprocess.Popen([*apart, "sh", "-ec", "\n".join(script)], stdout=output, stderr=output, cwd="/")
    try:
        yield Box(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run(image: Image, log: Path, *command: str, seconds: float = 120, **options: Any) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    with box(image, log, *command, **options) as started:
        code = started.outside.wait(seconds)
    return code, log.read_text()


def _overlays(folder: Path) -> bool:
    """Whether layers can be laid over each other here; vfs, which copies them, works everywhere."""
    parts = [folder / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir(parents=True)
    lower, upper, work, merged = map(str, parts)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        subprocess.run(["umount", merged], check=True)
    return mounted.returncode == 0


def _size(files: Path) -> int:
    """Bytes of all files, each counted once; about what a registry calls the uncompressed size."""
    done = subprocess.run(["du", "-sbx", files], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])
