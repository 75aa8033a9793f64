"""Image references, as podman normalises them."""

import pytest

from registry_storage.digest import Digest
from registry_storage.errors import InvalidReferenceError
from registry_storage.reference import Reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/team/app:v1", "docker.io/team/app:v1"),
        ("quay.io/app", "quay.io/app:latest"),
        ("quay.io/a/b/c/d:v1", "quay.io/a/b/c/d:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/team/app:v1", "127.0.0.1:5000/team/app:v1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("HOST/app", "HOST/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1.27@{DIGEST}", f"docker.io/library/nginx:1.27@{DIGEST}"),
        (f"127.0.0.1:5000/app@{DIGEST}", f"127.0.0.1:5000/app@{DIGEST}"),
        ("a__b/c-d/e.f--g", "docker.io/a__b/c-d/e.f--g:latest"),
        ("r.example:5000/App".lower(), "r.example:5000/app:latest"),
    ],
)
def test_a_reference_is_normalised(text: str, wanted: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == wanted
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/",
        "nginx:",
        ":v1",
        "nginx@",
        "nginx@sha256:abc",
        f"nginx@{DIGEST.upper()}",
        f"@{DIGEST}",
        "quay.io/",
        "quay.io//app",
        "quay.io/app/",
        "/app",
        "quay.io/App",
        "NGINX",
        "a b",
        "nginx:a b",
        "nginx:.hidden",
        "nginx:" + "x" * 129,
        "-a/b",
        "a..b/c",
        "a___b",
        "quay.io/../etc/passwd",
        "quay.io/a/./b",
        "user@quay.io/app",
        "https://quay.io/app",
        "quay.io:port/app",
        "quay.io:123456/app",
        "-quay.io/app",
        "quay.io/app\n",
        "nginx:v1\n",
        "nginx\0",
        "quay.io/a%2fb",
        "quay.io/app?x=y",
        "quay.io/app#x",
        "ünïcode",
        "a" * 256,
        "a/" * 600 + "a",
    ],
)
def test_anything_else_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Reference.parse(text)


def test_parts_and_versions() -> None:
    reference = Reference.parse(f"quay.io/team/app:v1@{DIGEST}")
    assert (reference.host, reference.repository, reference.tag) == ("quay.io", "team/app", "v1")
    assert reference.name == "quay.io/team/app"
    assert reference.version == DIGEST
    assert Reference.parse("quay.io/team/app").version == "latest"
    by_digest = reference.with_digest(Digest.of(b""))
    assert by_digest.tag is None
    assert by_digest.version == str(Digest.of(b""))
