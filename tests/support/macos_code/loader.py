"""Loads an extension module's macOS code, x86_64, into a real CPython on x86_64 Linux. Runs in the programs under test.

Both systems call functions alike and CPython's structures are the same, so Python's C API, memory, strings,
mutexes, fork and `ps` are the real ones. Simulated are CoreFoundation, LaunchServices and dlopen: they hand
out opaque values, and those of the frameworks kill the process by SIGSEGV when it was forked from the one
that loaded the code, as the stack in apache/airflow #45124 has it. C++ exceptions are not modelled; a
function that is not modelled is an error when the code is loaded.

What happens is told in the file $NATIVE_CODE_LOG, one line an event: process id, `loaded`, `called` or
`killed`, name. Needs nothing but the standard library; `native.py` writes the files that it reads.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import signal
import sys
import sysconfig
from collections.abc import Callable
from ctypes import addressof, c_void_p, string_at
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FUNCTION = ctypes.PYFUNCTYPE(c_void_p, *[c_void_p] * 6)  # called with the GIL held
MUTEX_SIGNATURE = 0x32AAABA7  # what macOS's static mutexes begin with, Linux's with zeros
RETURN_NULL = ("dlclose", "CFRelease", "_LSSetApplicationInformationItem")
# May be imported, as errors and C++ exceptions lead to them; to call one ends the process with a message.
NOT_TO_BE_CALLED = re.compile(
    r"^(_Unwind_Resume|__cxa_(?!atexit)\w+|__gxx_personality_v0|__stack_chk_fail|_ZSt9terminatev|_ZN(?!St3__15mutex)\w+"
    r"|_ZT[ISV]\w+|dlerror|dyld_stub_binder)$"
)

_libc = ctypes.CDLL(None)
_libc.dlsym.restype, _libc.dlsym.argtypes = c_void_p, [c_void_p, ctypes.c_char_p]
_libc.malloc.restype, _libc.malloc.argtypes = c_void_p, [ctypes.c_size_t]
_kept: list[object] = []  # what the machine code points to
_loading_process = os.getpid()


class NotModelled(Exception):
    """The code uses something that the loader does not have."""


def note(event: str, name: str) -> None:
    """Add a line to the log."""
    if "NATIVE_CODE_LOG" in os.environ:
        # One write in append mode: lines of several processes do not mix.
        log = os.open(os.environ["NATIVE_CODE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(log, f"{os.getpid()} {event} {name}\n".encode())
        os.close(log)


def load(directory: Path, name: str) -> object:
    """Return the extension module `name`, whose image lies in the directory. Raises NotModelled."""
    # Not os.uname(), which may be a simulated Mac's.
    built_for = getattr(sys.implementation, "_multiarch", "")
    if not built_for.startswith("x86_64-linux"):
        raise NotModelled(f"runs on x86_64 Linux only, not {built_for}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotModelled("a free-threaded Python lays out objects in another way")
    note("loaded", name)
    image = json.loads((directory / "image.json").read_text())
    memory = (directory / "image.bin").read_bytes()
    area = _area(memory)
    base = addressof(ctypes.c_char.from_buffer(area))
    _kept.extend([area, ctypes.py_object(_kept)])
    ctypes.pythonapi.Py_IncRef(
        ctypes.py_object(_kept)
    )  # The code is called until the interpreter is gone.

    def word(at: int) -> ctypes.c_uint64:
        return ctypes.c_uint64.from_address(base + at)

    for at in image["rebased"]:
        word(at).value += base
    for at in range(0, len(memory) - 7, 8):
        if word(at).value == MUTEX_SIGNATURE:
            word(at).value = 0
    simulated = _simulated()
    for at, symbol, addend in image["bound"]:
        own = image["symbols"].get(symbol)
        word(at).value = (_outside(symbol, simulated) if own is None else base + own) + addend
    for function in image["initialisers"]:
        ctypes.PYFUNCTYPE(None)(base + function)()
    return _module(name, base + image["symbols"]["PyInit_" + name.rpartition(".")[2]], directory)


def _module(name: str, init: int, directory: Path) -> object:
    """Do what import does with an extension module's initialisation function (PEP 489)."""
    api = ctypes.pythonapi
    api.PyModule_FromDefAndSpec2.restype = ctypes.py_object
    api.PyModule_FromDefAndSpec2.argtypes = [c_void_p, ctypes.py_object, ctypes.c_int]
    api.PyModule_ExecDef.argtypes = [ctypes.py_object, c_void_p]
    definition = ctypes.PYFUNCTYPE(c_void_p)(init)()
    PYTHON_API_VERSION = 1013  # CPython's name
    spec = ModuleSpec(name, None, origin=str(directory))
    module: object = api.PyModule_FromDefAndSpec2(definition, spec, PYTHON_API_VERSION)
    if api.PyModule_ExecDef(module, definition):
        raise NotModelled(f"{name}: its execution failed")
    return module


def _outside(symbol: str, simulated: dict[str, int]) -> int:
    """The address of a function or datum that the code imports."""
    if symbol in simulated:
        return simulated[symbol]
    if symbol.startswith(("CF", "dlopen", "dlclose")):
        simulated[symbol] = _apple(symbol)
    elif NOT_TO_BE_CALLED.match(symbol):
        simulated[symbol] = _function(_fatal(symbol))
    else:
        simulated[symbol] = _libc.dlsym(None, symbol.encode()) or 0
    if not simulated[symbol]:
        raise NotModelled(f"the code uses {symbol}, which is not modelled")
    return simulated[symbol]


def _function(call: Callable[..., int | None]) -> int:
    """The address of a machine code function that calls a Python function."""
    _kept.append(function := FUNCTION(call))
    return ctypes.cast(function, c_void_p).value or 0


def _cells(*values: int) -> int:
    """The address of 8 bytes for each value."""
    _kept.append(cells := (ctypes.c_uint64 * len(values))(*values))
    return addressof(cells)


def _fatal(symbol: str) -> Callable[..., int | None]:
    def call(*_: int | None) -> int | None:
        os.write(2, f"macOS code called {symbol}, which is not modelled\n".encode())
        note("aborted", symbol)
        os.abort()

    return call


def _apple(name: str) -> int:
    """A function of CoreFoundation's, LaunchServices' or dlopen: it must not be called after fork."""

    def call(_first: int | None = None, second: int | None = None, *_: int | None) -> int | None:
        note("called", name)
        if os.getpid() != _loading_process and not name.startswith("dl"):
            note("killed", name)
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "CFBundleGetFunctionPointerForName":
            assert second
            return _apple(string_at(ctypes.c_uint64.from_address(second + 16).value).decode())
        if name == "CFBundleGetDataPointerForName":
            return _cells(_cells(0))
        return None if name in RETURN_NULL else _cells(0, 0, 0, 0)

    return _function(call)


def _arguments() -> tuple[int, int]:
    """argc, and the pointers to this process's real arguments, which `ps` reads."""
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])
    strings = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    pointers = []
    for string in strings:
        pointers.append(start)
        start += len(string) + 1
    return len(strings), _cells(*pointers, 0)


def _append(string: int, more: int, size: int | None, *_: int | None) -> int:
    """libc++'s std::string::append, as its fields lie on x86_64."""
    fields = (ctypes.c_uint64 * 3).from_address(string)
    short = fields[0] & 255
    old = string_at(fields[2], fields[1]) if short & 1 else string_at(string + 1, short >> 1)
    new = old + string_at(more, size or 0)
    buffer = _libc.malloc(len(new) + 8)
    ctypes.memmove(buffer, new + b"\0", len(new) + 1)
    fields[0], fields[1], fields[2] = (len(new) + 8) | 1, len(new), buffer
    return string


def _area(content: bytes) -> mmap.mmap:
    """Memory for code and data, each process's own after fork."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    area = mmap.mmap(
        -1, len(content), flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    area.write(content)
    return area


def _thread_variable() -> int:
    """Code that gives the address of a thread's variable: one cell for all threads, all other registers kept."""
    area = _area(b"\x48\xb8" + _cells(0).to_bytes(8, "little") + b"\xc3")  # mov rax, cell; ret
    _kept.append(area)
    return addressof(ctypes.c_char.from_buffer(area))


def _simulated() -> dict[str, int]:
    """What only macOS has, and what has another name here."""

    def real(symbol: str) -> int:
        address: int = _libc.dlsym(None, symbol.encode())
        return address

    def constant(value: int) -> int:
        return _function(lambda *_: value)

    count, values = _arguments()
    environ: Any = c_void_p.in_dll(_libc, "environ")
    return {
        "_NSGetArgc": constant(_cells(count)),
        "_NSGetArgv": constant(_cells(values)),
        "_NSGetEnviron": constant(addressof(environ)),
        "_tlv_bootstrap": _thread_variable(),
        "__bzero": real("bzero"),
        "__cxa_atexit": constant(0),
        "__error": real("__errno_location"),
        "__stack_chk_guard": _cells(0x1234),
        "__stderrp": real("stderr"),
        "__CFConstantStringClassReference": _cells(*[0] * 16),
        "kCFBooleanTrue": _cells(_cells(0)),
        "pthread_setname_np": constant(0),
        "_ZNSt3__15mutex4lockEv": real("pthread_mutex_lock"),
        "_ZNSt3__15mutex6unlockEv": real("pthread_mutex_unlock"),
        "_ZNSt3__15mutexD1Ev": real("pthread_mutex_destroy"),
        "_ZNSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEE6appendEPKcm": _function(
            _append
        ),
        "_ZdlPv": real("free"),
        "_Znwm": real("malloc"),
    }
