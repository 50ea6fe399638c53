#!/usr/bin/env python3
"""Runs a program in which some system calls fail while a file says so.

    failing.py FILE PROGRAM [ARGUMENT…]

FILE has lines such as `dump EIO`: a kind of call and the error it gives. It is read at every such call, so that calls fail,
and succeed again, while the program runs; where it is missing or empty, none fails. The kinds:

    dump   recvfrom(2) that asks for the sender and, by MSG_TRUNC, for the length: an answer to a request over netlink
    told   recvfrom(2) that asks for the sender: what the kernel tells by itself over netlink
    inet6  socket(AF_INET6, …)

Needs no privilege: it is a seccomp filter that asks a supervisor (seccomp_unotify(2)), which is forked off beforehand and
ends with the program.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys

# linux/audit.h and the system call tables: architecture, and the numbers of seccomp(2), recvfrom(2), socket(2).
ARCHITECTURE, SECCOMP, RECVFROM, SOCKET = {
    "x86_64": (0xC000003E, 317, 45, 41),
    "aarch64": (0xC00000B7, 277, 207, 198),
}[platform.machine()]
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, NEW_LISTENER = 38, 1, 1 << 3
SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
# _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp)
NOTIF_RECV, NOTIF_SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
# struct seccomp_notif: id, pid, flags; then struct seccomp_data: number, architecture, instruction pointer, arguments.
NOTIFICATION, RESPONSE = "=QIIiIQ6Q", "=QqiI"
MSG_TRUNC = 0x20
# linux/bpf_common.h: load a word, test it, end.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FAMILY, AT_SENDER = 0, 4, 16, 48

# Jumps are counted from the next instruction.
FILTER = [
    (LOAD, 0, 0, AT_ARCHITECTURE),
    (EQUAL, 0, 7, ARCHITECTURE),  # else allow
    (LOAD, 0, 0, AT_NUMBER),
    (EQUAL, 1, 0, RECVFROM),  # to the sender
    (EQUAL, 2, 4, SOCKET),  # to the family, else allow
    (LOAD, 0, 0, AT_SENDER),
    (EQUAL, 2, 3, 0),  # allow, else ask
    (LOAD, 0, 0, AT_FAMILY),
    (EQUAL, 1, 0, socket.AF_INET6),  # ask, else allow
    (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    (RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
]


def install():
    """Installs the filter and gives the descriptor of its supervisor."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in FILTER))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(FILTER), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    listener = libc.syscall(
        ctypes.c_long(SECCOMP),
        ctypes.c_ulong(SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(NEW_LISTENER),
        described,
    )
    if listener < 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    return listener


def kind(number, arguments):
    if number == SOCKET:
        return "inet6"
    return "dump" if arguments[3] & MSG_TRUNC else "told"


def failure(path, wanted):
    """The error that a kind of call gives now; 0 for none."""
    try:
        with open(path, encoding="ascii") as file:
            rules = dict(line.split() for line in file)
    except FileNotFoundError:
        return 0
    return getattr(errno, rules[wanted]) if wanted in rules else 0


def supervise(listener, path):
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        for _, events in poll.poll():
            if events & select.POLLHUP:
                return
        notification = bytearray(struct.calcsize(NOTIFICATION))
        try:
            fcntl.ioctl(listener, NOTIF_RECV, notification)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            raise
        call, _, _, number, _, _, *arguments = struct.unpack(NOTIFICATION, notification)
        error = failure(path, kind(number, arguments))
        answer = struct.pack(RESPONSE, call, 0, -error, 0 if error else CONTINUE)
        try:
            fcntl.ioctl(listener, NOTIF_SEND, bytearray(answer))
        except OSError as refused:
            # Whoever asked was interrupted, or has ended.
            if refused.errno != errno.ENOENT:
                raise


def main():
    path, *command = sys.argv[1:]
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        theirs.close()
        # What the program writes to and reads from is not held open.
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        supervise(descriptors[0], path)
        os._exit(0)
    ours.close()
    listener = install()
    socket.send_fds(theirs, [b"x"], [listener])
    os.close(listener)
    theirs.close()
    os.execvp(command[0], command)


main()
