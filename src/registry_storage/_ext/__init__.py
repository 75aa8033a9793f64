"""The compiled kernels: leaves that know buffers and integers; each has one Python owner."""
