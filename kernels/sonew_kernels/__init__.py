"""The kernels of SONew: Triton and C++ block mathematics, their launch specs and tuned configurations.

Nothing is imported here: `sonew_kernels.spec` is plain data that reads without Triton, the kernel modules need it.
"""
