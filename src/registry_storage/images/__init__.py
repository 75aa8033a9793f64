"""The additional image store: images that podman, buildah and CRI-O find in their own storage's terms.

A read-only graph root of containers-storage that we write (`store.py`) and whose layers' contents are directories
of our mount. Nothing here is in any podman's interface but the files themselves; `records.py` says which.
"""
