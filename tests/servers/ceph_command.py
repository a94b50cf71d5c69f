"""Send one command to Ceph's monitor through librados: `python ceph_command.py JSON`, with CEPH_CONF set.

Not the program `ceph`: that one runs only on the Python of the Debian that packed it.
"""

import ctypes
import os
import sys


def main(command: str) -> int:
    rados = ctypes.CDLL("librados.so.2")
    cluster, text, length = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_size_t()
    steps = (
        lambda: rados.rados_create(ctypes.byref(cluster), None),
        lambda: rados.rados_conf_read_file(cluster, os.environ["CEPH_CONF"].encode()),
        lambda: rados.rados_connect(cluster),
        lambda: rados.rados_mon_command(
            cluster, (ctypes.c_char_p * 1)(command.encode()), ctypes.c_size_t(1), None, ctypes.c_size_t(0),
            None, None, ctypes.byref(text), ctypes.byref(length),
        ),
    )  # fmt: skip
    for number, step in enumerate(steps):
        if code := step():
            print(f"step {number}: error {code}: {(text.value or b'').decode()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main(sys.argv[1]))  # librados' threads need no orderly end
