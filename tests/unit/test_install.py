"""install and uninstall: idempotent, and only what was written is touched."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from registry_storage import ctl
from registry_storage.host.setup import plan
from registry_storage.host.units import unit
from registry_storage.host.written import State, marked, remove, state_of, write

UNIT = "etc/systemd/system/registry-storage.service"
STORAGE = "etc/containers/storage.conf"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "CONTAINERS_STORAGE_CONF"):
        monkeypatch.delenv(name, raising=False)


def tree(path: Path) -> dict[str, tuple[str, int]]:
    """Every file with its text and time."""
    return {
        str(file.relative_to(path)): (file.read_text(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


def install(prefix: Path, *words: str) -> int:
    return ctl.main(["install", "--prefix", str(prefix), *words])


def test_a_fresh_system_gets_a_unit_and_a_storage_conf_and_loses_them_again(tmp_path: Path) -> None:
    assert install(tmp_path) == 0
    first = tree(tmp_path)
    assert set(first) == {UNIT, STORAGE}
    document = tomllib.loads(first[STORAGE][0])
    assert document["storage"]["options"] == {
        "additionallayerstores": ["/var/lib/registry-storage/store:ref"],
        "additionalimagestores": ["/var/lib/registry-storage/images"],
    }
    assert install(tmp_path) == 0
    assert tree(tmp_path) == first, "nothing is written twice"
    assert ctl.main(["uninstall", "--prefix", str(tmp_path)]) == 0
    assert tree(tmp_path) == {}
    assert ctl.main(["uninstall", "--prefix", str(tmp_path)]) == 0


def test_a_storage_conf_of_somebody_else_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / STORAGE
    path.parent.mkdir(parents=True)
    path.write_text('[storage]\ndriver = "overlay"\n')
    assert install(tmp_path) == 1
    assert path.read_text() == '[storage]\ndriver = "overlay"\n'
    said = capsys.readouterr().err
    assert 'additionallayerstores = ["/var/lib/registry-storage/store:ref"]' in said
    lines = [line for line in said.splitlines() if line.startswith("    ")]
    path.write_text(f"{path.read_text()}[storage.options]\n{lines[0]}\n")
    assert install(tmp_path) == 1
    said = capsys.readouterr().err
    assert lines[0] not in said
    assert lines[1] in said
    path.write_text(f"{path.read_text()}{lines[1]}\n")
    assert install(tmp_path) == 0
    before = path.read_text()
    assert ctl.main(["uninstall", "--prefix", str(tmp_path)]) == 0
    assert path.read_text() == before


def test_what_somebody_changed_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path)
    path = tmp_path / UNIT
    path.write_text(path.read_text().replace("RestartSec=1", "RestartSec=9"))
    changed = path.read_text()
    assert install(tmp_path) == 1
    assert ctl.main(["uninstall", "--prefix", str(tmp_path)]) == 1
    assert path.read_text() == changed
    assert "somebody" in capsys.readouterr().err


def test_a_newer_version_replaces_what_an_older_one_wrote(tmp_path: Path) -> None:
    install(tmp_path)
    path = tmp_path / UNIT
    path.write_text(marked("[Unit]\n# of an older version\n"))
    assert install(tmp_path) == 0
    assert "older version" not in path.read_text()


def test_a_podman_that_forgets_layers_is_told_of_the_image_store_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path)
    assert install(tmp_path, "--no-layer-store") == 0, "what we wrote ourselves follows"
    path = tmp_path / STORAGE
    options = tomllib.loads(path.read_text())["storage"]["options"]
    assert options == {"additionalimagestores": ["/var/lib/registry-storage/images"]}
    path.write_text('[storage.options]\nadditionallayerstores = ["/var/lib/registry-storage/store:ref"]\n')
    assert install(tmp_path, "--no-layer-store") == 1
    said = capsys.readouterr().err
    assert 'additionalimagestores = ["/var/lib/registry-storage/images"]' in said
    assert "take /var/lib/registry-storage/store:ref out of additionallayerstores" in said


def test_the_image_store_may_be_elsewhere(tmp_path: Path) -> None:
    assert install(tmp_path, "--images", "/srv/images") == 0
    assert tomllib.loads((tmp_path / STORAGE).read_text())["storage"]["options"]["additionalimagestores"] == [
        "/srv/images"
    ]
    assert "--images /srv/images" in (tmp_path / UNIT).read_text()


def test_it_starts_nothing_of_another_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path, "--now") == 2
    assert tree(tmp_path) == {}
    assert "not with --print or --prefix" in capsys.readouterr().err


def test_print_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path, "--print") == 0
    assert tree(tmp_path) == {}
    said = capsys.readouterr().out
    assert "Type=notify" in said
    assert "additionallayerstores" in said
    assert "systemctl enable --now registry-storage" in said


def test_a_user_gets_their_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    planned = plan(user=True, environ={"HOME": str(home), "XDG_RUNTIME_DIR": "/run/user/7"})
    assert [file.path for file in planned.files] == [
        home / ".config/systemd/user/registry-storage.service",
        home / ".config/containers/storage.conf",
    ]
    text = planned.files[0].text
    assert f"--root {home}/.local/share/registry-storage {home}/.local/share/registry-storage/store" in text
    assert "podman unshare env -u WATCHDOG_PID " in text
    assert f"""umount -l "$$0"' {home}/.local/share/registry-storage/store\n""" in text
    assert "CapabilityBoundingSet" not in text
    storage = tomllib.loads(planned.files[1].text)["storage"]
    assert storage["graphroot"] == f"{home}/.local/share/containers/storage"
    assert planned.start == "systemctl --user enable --now registry-storage"


@pytest.mark.parametrize("word", ["--mountpoint", "--root", "--images", "--prefix"])
def test_paths_must_be_absolute(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["install", word, "here"]) == 2
    assert "wanted an absolute path" in capsys.readouterr().err


def test_files_know_their_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert state_of(path) is State.ABSENT
    assert write(path, "text\n")
    assert not write(path, "text\n")
    assert state_of(path) is State.OURS
    path.write_text("other\n")
    assert remove(path) is State.FOREIGN
    with pytest.raises(FileExistsError):
        write(path, "text\n")
    assert path.read_text() == "other\n"


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, user: bool) -> None:
    path = tmp_path / "registry-storage.service"
    text = unit(["/bin/true", "/var/lib/registry-storage/store"], ["/bin/true"], root=str(tmp_path), user=user)
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("Documentation=")))
    command = ["systemd-analyze", "verify", "--man=no", *(["--user"] if user else []), str(path)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert said.returncode == 0
    assert said.stderr == ""


def test_a_command_with_odd_characters_survives_in_the_unit() -> None:
    text = unit(["/opt/my apps/registry-storage", "/x/100%"], ["/bin/true"], root="/x", user=False)
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert line == "ExecStart='/opt/my apps/registry-storage' /x/100%%"
