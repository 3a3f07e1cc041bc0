"""A stand-in for NVML: a C library with its ABI, and the same power curves in Python.
In: environment variables (see nvml.c). Out: a folder for LD_LIBRARY_PATH; exact joules to compare with.
Tests of the meter run the real pynvml against it.
"""
