"""registries.conf(5): prefixes, mirrors, drop-ins, and what podman refuses too."""

from pathlib import Path

import pytest

from registry_storage.errors import ConfigError
from registry_storage.reference import Reference
from registry_storage.registry.hosts import PLAIN_HTTP
from registry_storage.registry.registries_conf import AUTH_FILES, RegistriesConf

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registries.conf"


def names(path: Path, text: str, reference: str) -> list[str]:
    """The repositories that are asked, in order; those that may be insecure with a "!"."""
    path.write_text(text)
    found = RegistriesConf([path], []).endpoints(Reference.parse(reference))
    return [one.name + ("!" if PLAIN_HTTP in one.ways else "") for one in found]


MIRRORED = """
[[registry]]
prefix = "example.com/team"
location = "origin.example.com:5000/base"

[[registry.mirror]]
location = "mirror.example.com/copy"
insecure = true

[[registry.mirror]]
location = "digests.example.com"
pull-from-mirror = "digest-only"

[[registry.mirror]]
location = "tags.example.com"
pull-from-mirror = "tag-only"
"""


def test_mirrors_come_first_and_the_prefix_is_replaced_everywhere(path: Path) -> None:
    assert names(path, MIRRORED, "example.com/team/app:v1") == [
        "mirror.example.com/copy/app!",
        "tags.example.com/app",
        "origin.example.com:5000/base/app",
    ]


def test_some_mirrors_are_only_for_digests(path: Path) -> None:
    assert names(path, MIRRORED, f"example.com/team/app@{DIGEST}") == [
        "mirror.example.com/copy/app!",
        "digests.example.com/app",
        "origin.example.com:5000/base/app",
    ]


def test_all_mirrors_may_be_only_for_digests(path: Path) -> None:
    text = (
        '[[registry]]\nlocation = "example.com"\nmirror-by-digest-only = true\n'
        '[[registry.mirror]]\nlocation = "mirror.example.com"\n'
    )
    assert names(path, text, "example.com/app:v1") == ["example.com/app"]
    assert names(path, text, f"example.com/app@{DIGEST}") == ["mirror.example.com/app", "example.com/app"]


def test_what_a_wildcard_covers_is_replaced_by_its_location(path: Path) -> None:
    text = (
        '[[registry]]\nprefix = "*.example.com"\nlocation = "cache.local/all"\n'
        '[[registry.mirror]]\nlocation = "near.local"\n'
    )
    assert names(path, text, "a.b.example.com/team/app") == ["near.local/team/app", "cache.local/all/team/app"]


def test_a_wildcard_without_location_leaves_the_reference(path: Path) -> None:
    text = '[[registry]]\nprefix = "*.example.com"\n[[registry.mirror]]\nlocation = "near.local"\n'
    assert names(path, text, "a.example.com/team/app") == ["near.local/team/app", "a.example.com/team/app"]


def test_mirrors_of_docker_hub(path: Path) -> None:
    text = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:5000"\n'
    assert names(path, text, "nginx") == ["127.0.0.1:5000/library/nginx!", "docker.io/library/nginx"]


def test_a_digest_survives_the_rewriting(path: Path) -> None:
    path.write_text('[[registry]]\nprefix = "a.example"\nlocation = "b.example"\nblocked = false\n')
    (found,) = RegistriesConf([path], []).endpoints(Reference.parse(f"a.example/x@{DIGEST}"))
    assert (found.host, found.repository) == ("b.example", "x")


def test_a_drop_in_replaces_a_registry_with_its_mirrors(path: Path, tmp_path: Path) -> None:
    path.write_text(MIRRORED)
    directory = tmp_path / "registries.conf.d"
    directory.mkdir()
    (directory / "10-mine.conf").write_text('[[registry]]\nprefix = "example.com/team"\nlocation = "other.example"\n')
    registries = RegistriesConf([path], [directory])
    found = registries.endpoints(Reference.parse("example.com/team/app"))
    assert [one.name for one in found] == ["other.example/app"]
    assert registries.files == [path, directory / "10-mine.conf"]
    (directory / "10-mine.conf").unlink()
    assert len(registries.endpoints(Reference.parse("example.com/team/app"))) == 3


def test_who_is_asked_for_credentials(path: Path, tmp_path: Path) -> None:
    path.write_text('credential-helpers = ["containers-auth.json", "pass"]\n')
    assert RegistriesConf([path], []).credential_helpers == (AUTH_FILES, "pass")
    drop_in = tmp_path / "d" / "1.conf"
    drop_in.parent.mkdir()
    drop_in.write_text('credential-helpers = ["secretservice"]\nadditional-layer-store-auth-helper = "helper"\n')
    registries = RegistriesConf([path], [drop_in.parent])
    assert registries.credential_helpers == ("secretservice",)
    assert registries.auth_helper == "helper"
    path.write_text("")
    assert RegistriesConf([path], []).credential_helpers == (AUTH_FILES,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[registry]]\nprefix = "a.example"', "wanted a location"),
        ('[[registry]]\nprefix = "a*.example"', "wanted a wildcard of the form"),
        ('[[registry]]\nprefix = "*.example/team"\nlocation = "b.example"', "wanted a wildcard of the form"),
        ('[[registry]]\nlocation = "https://a.example"', "wanted no scheme"),
        ('[[registry]]\nlocation = "a.example"\npull-from-mirror = "all"', "belongs into its"),
        ('[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\ninsecure = true', "mirror: wanted a location"),
        (
            '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "m.example"\n'
            'pull-from-mirror = "no"',
            "wanted all, digest-only or tag-only, got 'no'",
        ),
        (
            '[[registry]]\nlocation = "a.example"\nmirror-by-digest-only = true\n'
            '[[registry.mirror]]\nlocation = "m.example"\npull-from-mirror = "all"',
            "got both",
        ),
        ('[[registry]]\nlocation = "a.example"\nmirror = 5', "mirror: wanted a list of tables"),
        (
            '[[registry]]\nlocation = "a.example"\ninsecure = true\n[[registry]]\nprefix = "b.example"\n'
            'location = "a.example"',
            "several times, with and without insecure",
        ),
        ('[[registry]]\nlocation = "a.example"\n[registries.block]\nregistries = ["b.example"]', "got both"),
        ('[[registry]]\nprefix = "a.example"\nlocation = "nodots"', "does not begin with the name of a host"),
        ('[[registry]]\nprefix = "a.example"\nlocation = "b.example/UPPER"', "which is no reference"),
        ('credential-helpers = "x"', "wanted a list of strings"),
        ("additional-layer-store-auth-helper = 5", "wanted str"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"registries\.conf") as caught:
        names(path, text, "a.example/app")
    assert message in str(caught.value)


def test_version_one_may_both_allow_and_block(path: Path) -> None:
    path.write_text('[registries.insecure]\nregistries = ["a.example"]\n[registries.block]\nregistries = ["a.example"]')
    found = RegistriesConf([path], []).find(Reference.parse("a.example/x"))
    assert found is not None
    assert (found.insecure, found.blocked) == (True, True)
