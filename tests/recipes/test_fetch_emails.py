"""E-mails are fetched once with npm, checked, and read without their headers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_recipe, run_copied

SAID = "one two three four five six seven eight"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside those that it builds on."""
    return load_recipe("fetch_emails.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The scripts copied, so that their `data/` is in a temporary folder; the last one run."""
    others = ("fetch_demo.py", "fetch_benchmarks.py")
    return run_copied(folder, *others, script="fetch_emails.py", **environment)


def npm(folder: Path, script: str) -> dict[str, str]:
    """An environment whose npm is a shell script, whose fifth argument is where to pack."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_a_second_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    """With the folder there: one line, exit code 0."""
    (tmp_path / "data/emails").mkdir(parents=True)
    done = run(tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stdout.startswith("already there: ")


def test_another_archive_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """It is not unpacked; the error is one line, and nothing is left."""
    done = run(tmp_path, **npm(tmp_path / "bin", 'echo x > "$4/some.tgz"'))
    assert done.returncode == 1
    assert "not the known" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any((tmp_path / "data").iterdir())


def test_what_npm_says_is_told_with_a_remedy(tmp_path: Path) -> None:
    """An npm that fails is one line, and one that is not there names what brings it."""
    done = run(tmp_path, **npm(tmp_path / "bin", "echo no network >&2; exit 1"))
    assert done.returncode == 1
    assert ": no network (check the network" in done.stderr
    absent = run(tmp_path, PATH=str(tmp_path))
    assert absent.returncode == 1
    assert "npm is not there (install Node.js" in absent.stderr


def test_bodies_are_read_and_headers_are_not(fetch: ModuleType, tmp_path: Path) -> None:
    """Plain before HTML, tags and hidden text gone, cut, with the kind of its folder as answer."""
    raw = {
        "easy-ham-1": f"Subject: hidden\n\n{SAID} {'more ' * 99}",
        "spam-2": "Content-Type: text/html\n\n"
        f"<style>p {{}}</style><p>{SAID}</p><!-- <b>no</b> --> &amp; nine",
        "hard-ham-1": "\n\ntoo few",
        "spam-1": f"Content-Type: text/plain; charset=unheard-of\n\n{SAID}",
        "elsewhere": f"\n\n{SAID}",
    }
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as members:
        for place, (group, text) in enumerate(raw.items()):
            told = json.dumps({"text": text}).encode()
            member = tarfile.TarInfo(f"package/data/{group}/0000{place}.abc.json")
            member.size = len(told)
            members.addfile(member, io.BytesIO(told))
    wanted, spam = fetch.read_emails(archive)
    assert wanted["text"] == SAID + 52 * " more"
    assert (wanted["kind"], wanted["completion"]) == ("wanted", " no")
    assert spam["text"] == f"{SAID} & nine"
    assert (spam["kind"], spam["completion"]) == ("spam", " yes")
    assert spam["prompt"] == f"E-mail: {SAID} & nine\nSpam:"
