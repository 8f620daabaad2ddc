"""A Python that has torch, PyAV and vsr imported already: a process of its own starts in 50 ms, not in three seconds.

A server imports them once. For each start it forks a process that gets the caller's arguments, folder,
environment and descriptors 0, 1 and 2, and runs as `python -c`, `python -m` or `python FILE` would. The caller
is a small program in the place of `python`: it passes SIGINT, SIGTERM and SIGHUP on and ends as the process ended.

Two things differ from a Python started cold. What is printed while modules are imported is not seen, and a
process outlives a caller that is killed (SIGKILL) by a moment. A test about either takes `sys.executable`.

    python warm_python.py serve SOCKET
    python warm_python.py call SOCKET ARGUMENT ...
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys

READY = "ready\n"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# -- the caller: it imports little, as it is started often -------------------------------------------------


def _call(path: str, arguments: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        server.connect(path)
        descriptors = array.array("i", (0, 1, 2))
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109 (quick to import)
        server.sendmsg([len(request).to_bytes(8, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        server.sendall(request)
        answers = server.makefile()
        process = int(answers.readline())
        for descriptor in descriptors:  # held by the process alone: a pipe ends when it ends
            os.close(descriptor)
        for number in PASSED_ON:
            signal.signal(number, lambda number, frame: os.kill(process, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# -- the server --------------------------------------------------------------------------------------------


def _serve(path: str) -> list[str]:
    """Answer calls until the parent is gone. Returns, in a process of its own, the arguments that it is to run."""
    import av  # noqa: F401
    import cv2  # noqa: F401
    import torch  # noqa: F401

    from vsr import enhance, load_model  # noqa: F401

    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(5)
        print(READY, end="", flush=True)
        while os.getppid() == parent:
            _reap()
            try:
                caller, _ = listening.accept()
            except TimeoutError:
                continue
            with caller:
                if os.fork() == 0:
                    listening.close()
                    return _answer(caller)
    os._exit(0)


def _reap() -> None:
    """Take note of the calls that have ended, so that they leave no zombies and their CPU time is counted."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _answer(caller: socket.socket) -> list[str]:
    """Start the process, and tell the caller its number and how it ends. Returns in that process alone."""
    caller.settimeout(None)
    length, ancillary, _, _ = caller.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i", ancillary[0][2])
    size, request = int.from_bytes(length, "little"), b""
    while len(request) < size:
        request += caller.recv(size - len(request))
    arguments, folder, environment = json.loads(request)
    process = os.fork()
    if process == 0:
        caller.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return list(arguments)
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    caller.sendall(f"{process}\n".encode())
    if os.fork() == 0:  # watches the caller, and ends the process when that is killed
        caller.recv(1)
        os.kill(process, signal.SIGKILL)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    caller.sendall(f"{code}\n".encode())
    os._exit(0)


def _run(arguments: list[str]) -> None:
    """What `python ARGUMENTS` does."""
    import runpy

    kind, *rest = arguments
    sys.path[0] = os.getcwd()  # noqa: PTH109
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        if not hasattr(sys.modules.get(rest[0]), "__path__"):
            sys.modules.pop(rest[0], None)  # it runs as __main__, from the beginning
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(kind)  # noqa: PTH120
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    task, socket_path, *given = sys.argv[1:]
    if task == "serve":
        _run(_serve(socket_path))
    else:
        _call(socket_path, given)
