#!/usr/bin/env python3
"""Makes something to see on the dashboards: opens obscure ports, connects to them, and knocks on ports where nobody is.

Only on the loopback addresses of this host. Ports that somebody else has are left alone.
"""

import argparse
import itertools
import random
import socket
import time

HERE = "127.0.0.1"
# Of the default configuration's watch set: monitor, npmp, nppmp, and services of long ago.
OPENED = [561, 609, 3476, 79, 513]
KNOCKED = [7, 9, 11, 13, 17, 19, 70, 111, 512, 514, 540, 560, 610, 611]


def main():
    arguments = parse()
    chance = random.Random(arguments.seed)
    rounds = range(arguments.rounds) if arguments.rounds else itertools.count()
    for number in rounds:
        port = OPENED[number % len(OPENED)]
        listener = listen(port)
        print(f"{port}/tcp opened" if listener else f"{port}/tcp: somebody else has it, or it may not be opened", flush=True)
        for _ in range(arguments.beats):
            if listener:
                converse(listener, port)
            for knocked in chance.sample(KNOCKED, 3):
                knock(knocked)
            time.sleep(arguments.pace)
        if listener:
            listener.close()
        first = chance.randrange(1024, 30000)
        print(f"{first}-{first + arguments.sweep - 1}/tcp swept", flush=True)
        for swept in range(first, first + arguments.sweep):
            knock(swept)


def listen(port):
    """A listener on the port; None where there can be none."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HERE, port))
        listener.listen()
        return listener
    except OSError:
        listener.close()
        return None


def converse(listener, port):
    """One short connection to the listener."""
    with socket.create_connection((HERE, port), timeout=5):
        accepted, _ = listener.accept()
        accepted.close()


def knock(port):
    """A look at a port, TCP and UDP. Whoever is there after all is not spoken to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(1)
        knocking.connect_ex((HERE, port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knocking:
        knocking.sendto(b"", (HERE, port))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="how many ports to open, one after the other; 0: without end")
    parser.add_argument("--beats", type=int, default=30, help="how often to connect and knock while a port is open")
    parser.add_argument("--pace", type=float, default=2, help="seconds between beats")
    parser.add_argument("--sweep", type=int, default=200, help="how many ports to sweep after each")
    parser.add_argument("--seed", type=int, help="the same noise each time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
