"""What references are known to lead to, without the network."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry_storage.cache.documents import Documents
from registry_storage.cache.ledger import Ledger
from registry_storage.descriptor import Platform
from registry_storage.digest import Digest
from registry_storage.layer.image import MAX_PARSED, Images

REF = "localhost:5000/app:1"
NO_NETWORK: Any = None


def manifest(name: bytes) -> bytes:
    """Its layer and config are named after `name`; there are none."""
    digest = str(Digest.of(name))
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2}
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 3}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    (tmp_path / "documents").mkdir()
    return Documents(tmp_path / "documents")


@pytest.fixture
def images(ledger: Ledger, documents: Documents) -> Images:
    return Images(NO_NETWORK, documents, ledger, Platform("linux", "amd64"))


def test_a_tag_that_moved_leads_to_its_new_manifest(images: Images, ledger: Ledger, documents: Documents) -> None:
    assert images.known(REF) is None
    for name in (b"first", b"second", b"first"):
        digest = documents.store(manifest(name))
        ledger.put_image(REF, digest)
        for _ in range(2):
            found = images.known(REF)
            assert found is not None
            assert str(found.reference) == REF
            assert found.manifest_digest == digest
            assert [layer.digest for layer in found.manifest.layers] == [Digest.of(name)]


def test_a_manifest_that_was_lost_is_not_known_any_more(
    images: Images, ledger: Ledger, documents: Documents, tmp_path: Path
) -> None:
    digest = documents.store(manifest(b"one"))
    ledger.put_image(REF, digest)
    assert images.known(REF) is not None
    (tmp_path / "documents" / digest.hex).write_bytes(b"damaged")
    assert images.known(REF) is None


def test_few_parsed_manifests_are_kept(images: Images, ledger: Ledger, documents: Documents) -> None:
    references = [f"localhost:5000/app:{number}" for number in range(3 * MAX_PARSED)]
    for reference in references:
        ledger.put_image(reference, documents.store(manifest(reference.encode())))
    for reference in references + references:
        found = images.known(reference)
        assert found is not None
        assert str(found.reference) == reference
        assert found.manifest.layers[0].digest == Digest.of(reference.encode())
    assert len(images._parsed) == MAX_PARSED
