"""Freed memory is reused without page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from vsr.train.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no mallopt here")
for num_mib in (8, 80) * 10:
    torch.ones(num_mib << 18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for num_mib in (8, 80) * 40:
    torch.ones(num_mib << 18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def num_page_faults(python: str, mode: str) -> int:
    done = subprocess.run([python, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=120)
    if done.stderr.strip() == "no mallopt here":
        pytest.skip("this system's allocator has no mallopt")
    return int(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="counts page faults as POSIX does")
def test_tensors_reuse_memory_once_it_is_kept(warm_python: str) -> None:
    # A small block that another thread puts into the gap costs a large one its place now and then.
    assert num_page_faults(warm_python, "keep") * 4 < num_page_faults(warm_python, "as it is")
