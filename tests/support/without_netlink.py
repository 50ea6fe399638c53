#!/usr/bin/env python3
"""Runs a program in which socket(AF_NETLINK, …) fails as it does under systemd's RestrictAddressFamilies=.

    without_netlink.py any|raw PROGRAM [ARGUMENT…]

`any` refuses every netlink socket; `raw` refuses those of type SOCK_RAW and lets SOCK_DGRAM pass, which is how netstat2
opens one. Needs no privilege: it is a seccomp filter (seccomp(2)), and holds for whatever the program starts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# linux/audit.h and the system call tables: architecture, number of socket(2).
ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
AF_NETLINK, SOCK_TYPE_MASK, SOCK_RAW = 16, 0xF, 3
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
# linux/bpf_common.h: load a word, test it, mask it, end.
LOAD, EQUAL, MASK, RETURN = 0x20, 0x15, 0x54, 0x06
# struct seccomp_data: number, architecture, instruction pointer, then arguments of 8 bytes.
NUMBER, ARCHITECTURE, FAMILY, TYPE = 0, 4, 16, 24


def filter_of(which):
    architecture, socket = ARCHITECTURES[platform.machine()]
    tests = [(ARCHITECTURE, architecture), (NUMBER, socket), (FAMILY, AF_NETLINK)]
    program = []
    for offset, value in tests:
        program += [(LOAD, 0, 0, offset), (EQUAL, 0, "allow", value)]
    if which == "raw":
        program += [(LOAD, 0, 0, TYPE), (MASK, 0, 0, SOCK_TYPE_MASK), (EQUAL, 0, "allow", SOCK_RAW)]
    program.append((RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT))
    program.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
    allow = len(program) - 1
    return [
        (code, yes, allow - at - 1 if no == "allow" else no, value)
        for at, (code, yes, no, value) in enumerate(program)
    ]


def install(program):
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for call in [
        (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_char_p(described), zero, zero),
    ]:
        if libc.prctl(*call) != 0:
            sys.exit(f"prctl({call[0]}): {os.strerror(ctypes.get_errno())}")


def main():
    which, *command = sys.argv[1:]
    if which not in ("any", "raw") or not command:
        sys.exit(__doc__)
    install(filter_of(which))
    os.execvp(command[0], command)


main()
