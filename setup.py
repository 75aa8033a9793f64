"""The compiled modules; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

DIRECTIVES = {"language_level": 3, "embedsignature": True, "freethreading_compatible": True}

KERNELS = {
    "chunk_digest": ["crypto"],
    "fuse_lane": [],
    "frames": ["deflate", "z", "zstd"],
    "splitter": [],
    "toc_builder": [],
    "toc_index": [],
    "unpack": ["z", "zstd"],
    "writer": ["deflate", "zstd"],
}

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"registry_storage._ext.{name}",
                [f"_ext/{name}.pyx"],
                libraries=libraries,
                extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter"],
            )
            for name, libraries in KERNELS.items()
        ],
        compiler_directives=DIRECTIVES,
    )
)
