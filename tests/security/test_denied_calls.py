"""A command makes system calls that give it rights, or that have often led into the kernel."""

from __future__ import annotations

import errno
import platform
import struct
import sys

import pytest

from noetl_worker.settings.settings import load_settings
from noetl_worker.tools.process import confinement
from noetl_worker.worker.worker import Worker

from .commands import USERS, printed_under, run_as, run_one
from .test_limits_of_others import BY_32_BITS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Linux"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="its calls are not known"),
]

CALLS = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
IS_ARM = os.uname().machine == "aarch64"
NEW_USER, SIGCHLD = 0x1000_0000, 17

def outcome(number, *arguments):
    ctypes.set_errno(0)
    got = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if type(one) is int else one for one in arguments))
    if got == 0 and number & 0xFFF in (56, 220, 435):
        os._exit(0)  # the child
    if got > 0:  # a child, a descriptor or a key
        return "done"
    return errno.errorcode.get(ctypes.get_errno(), "done")

unshare, clone, setns = (97, 220, 268) if IS_ARM else (272, 56, 308)
add_key, request_key, keyctl, userfaultfd = (217, 218, 219, 282) if IS_ARM else (248, 249, 250, 323)
own = os.open("/proc/self/ns/user", os.O_RDONLY)
clone3_arguments = (ctypes.c_uint64 * 8)(NEW_USER, 0, 0, 0, SIGCHLD, 0, 0, 0)
room = ctypes.create_string_buffer(256)
"""
NAMESPACES = """
result = {
    "unshare": outcome(unshare, NEW_USER),
    "clone": outcome(clone, NEW_USER | SIGCHLD, 0, 0, 0, 0),
    "clone3": outcome(435, clone3_arguments, 64),
    "setns": outcome(setns, own, 0),
}
"""
OTHERS = """
result = {
    "io_uring_setup": outcome(425, 1, room),
    "io_uring_enter": outcome(426, 0, 0, 0, 0, 0, 0),
    "io_uring_register": outcome(427, 0, 0, 0, 0),
    "userfaultfd": outcome(userfaultfd, 1),
    "add_key": outcome(add_key, b"user", b"name", b"value", 5, -2),
    "request_key": outcome(request_key, b"user", b"name", 0, 0),
    "keyctl": outcome(keyctl, 0, -2, 1),
}
"""


@pytest.mark.parametrize("user", USERS)
def test_command_makes_no_user_namespace_and_enters_none(user: str) -> None:
    """A user namespace, in which a command has every capability and mounts (`unshare`, `clone`, `clone3`, `setns`)."""
    tried = run_one(user, "basic", "python", {"code": CALLS + NAMESPACES})["data"]
    assert tried == {"unshare": "EPERM", "clone": "EPERM", "clone3": "ENOSYS", "setns": "EPERM"}
    shell = (
        "unshare -U true; unshare -Ur mount -t tmpfs none /mnt; grep CapEff /proc/self/status; mount -t tmpfs none /mnt"
    )
    outcome = run_one(user, "basic", "shell", {"command": shell})
    assert outcome["exit_code"] != 0
    assert outcome["stderr"].count("unshare failed: Operation not permitted") == 2


@pytest.mark.parametrize("user", USERS)
def test_command_reaches_no_io_uring_userfaultfd_or_keyring(user: str) -> None:
    """`io_uring`, `userfaultfd`, `add_key`, `request_key` and `keyctl`."""
    tried = run_one(user, "basic", "python", {"code": CALLS + OTHERS})["data"]
    assert set(tried.values()) == {"EPERM"}, tried


@pytest.mark.skipif(platform.machine() != "x86_64", reason="has calls of 32 bits")
@pytest.mark.parametrize("user", USERS)
def test_other_numbers_of_denied_calls_are_no_way_around(user: str) -> None:
    """The same calls, and ptrace, by their 32-bit and x32 numbers."""
    wanted = {
        26: 0x4206,
        120: 0x1000_0000 | 17,
        310: 0x1000_0000,
        346: 0,
        425: 1,
        374: 1,
        286: 0,
        287: 0,
        288: 0,
        435: 0,
    }
    code = "\n".join(
        f"number, first, second = {number}, {first}, 0{BY_32_BITS}result.append(status)"
        for number, first in wanted.items()
    )
    by_32 = run_one(user, "basic", "python", {"code": f"result = []\n{code}"})["data"]
    refused = dict.fromkeys(wanted, 1) | {435: 38}  # EPERM, ENOSYS; -11: a kernel without calls of 32 bits
    assert [one for one in zip(by_32, refused.values(), strict=True) if one[0] not in (-11, one[1])] == []
    x32 = (
        "calls = (56, 101, 272, 308, 250, 323, 425, 521, 435)\n"
        "result = [outcome(0x4000_0000 | one, NEW_USER | SIGCHLD, 0, 0) for one in calls]"
    )
    assert run_one(user, "basic", "python", {"code": CALLS + x32})["data"] == ["EPERM"] * 8 + ["ENOSYS"]


@pytest.mark.parametrize("user", USERS)
def test_namespaces_are_there_where_the_operator_allows_them(user: str) -> None:
    """(no attack) NOETL_WORKER_ALLOW_NAMESPACES, for rootless containers in a step; the other calls stay denied."""
    code = "print(__import__('json').dumps(outcome(unshare, NEW_USER)))"
    if printed_under(user, CALLS + code) != "done":
        pytest.skip("this system lets the user make no namespace")
    others, tried, shell = run_as(
        user,
        "basic",
        [
            ("python", {"code": CALLS + OTHERS}),
            ("python", {"code": CALLS + NAMESPACES}),
            ("shell", {"command": "unshare -Ur sh -c 'mount --bind /tmp /mnt && id -u'"}),
        ],
        allows_namespaces=True,
    )
    assert set(others["data"].values()) == {"EPERM"}
    assert tried["data"]["unshare"] == "done"
    assert tried["data"]["clone3"] != "ENOSYS"
    assert shell["stdout"] == "0\n" or "mount" in shell["stderr"]  # a container's runtime may refuse the mount


def test_setting_allows_namespaces_to_commands() -> None:
    """(no attack) They are off where nothing is said."""
    assert not Worker(load_settings({})).registry.confinement.allows_namespaces
    given = load_settings({"NOETL_WORKER_ALLOW_NAMESPACES": "true"})
    assert Worker(given).registry.confinement.allows_namespaces


def answer(calls: confinement.Calls, number: int, *arguments: int, allows_namespaces: bool = False) -> int:
    """The error that the filter answers a call with; 0: it lets the call through."""
    data = struct.pack("=IIQ6Q", number, calls.kind, 0, *arguments, *(0,) * (6 - len(arguments)))
    steps, place, loaded = confinement.filter_steps(calls, allows_namespaces), 0, 0
    while True:
        operation, where_true, where_false, value = steps[place]
        place += 1
        match operation:
            case confinement.LOAD:
                [loaded] = struct.unpack_from("=I", data, value)
            case confinement.CLEAR:
                loaded &= value
            case confinement.IS_EQUAL:
                place += where_true if loaded == value else where_false
            case confinement.HAS_BIT:
                place += where_true if loaded & value else where_false
            case confinement.END:
                return 0 if value == confinement.ALLOWED else value & 0xFFFF


@pytest.mark.parametrize("calls", [calls for kinds in confinement.CALLS.values() for calls in kinds])
def test_filter_answers_each_call_of_each_kind_of_program(calls: confinement.Calls) -> None:
    """(no attack) Both machines, programs of 64 and of 32 bits and x32, by the filter's own steps."""
    user, lets = confinement.CLONE_NEWUSER, {"allows_namespaces": True}
    for bit in (0, confinement.X32_BIT):
        assert {answer(calls, call | bit) for call in (*calls.refused, calls.setns)} == {errno.EPERM}
        for call in (calls.clone | bit, calls.unshare | bit):
            assert answer(calls, call, user | 17) == errno.EPERM
            assert answer(calls, call, 0x3D0F00) == 0  # a thread
            assert answer(calls, call, user, **lets) == 0
        assert answer(calls, confinement.CLONE3 | bit) == errno.ENOSYS
        assert answer(calls, confinement.CLONE3 | bit, **lets) == answer(calls, calls.setns | bit, **lets) == 0
        assert answer(calls, 1 | bit) == 0
        limits = ((0, 7, 1), (9, 7, 0), (9, 7, 1), (9, 7, 1 << 32))  # of its own process, and read or set of another
        assert [answer(calls, calls.prlimit | bit, *one) for one in limits] == [0, 0, errno.EPERM, errno.EPERM]
