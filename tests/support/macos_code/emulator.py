"""Runs an extension module's macOS code on an emulated processor and records the functions it calls.

Memory and string functions do what they should. Python's C API, CoreFoundation and LaunchServices hand out
opaque objects and succeed: every path that Apple's failing would open stays closed. There is one process
and one thread; C++ exceptions are not modelled. A function that is not modelled is an error when the image
is loaded, not a silent zero.
"""

from __future__ import annotations

import re
import struct
import sys
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import unicorn as u
from unicorn import arm64_const as arm
from unicorn import x86_const as x86

from support.macos_code.image import Image

SIZE = 0x40_0000  # of each part of the address space
IMAGE, OUTSIDE, HEAP, STACK, ARGV = (n << 32 for n in range(1, 6))
SLOT = 256  # room for one function or datum of the outside
END = OUTSIDE + SIZE - SLOT  # where the outermost function returns to
TITLE_ROOM = b"python\0-m\0gunicorn" + b"." * 80 + b"\0"

APPLE = re.compile(r"^(dl(open|close|sym|error)$|CF|_LS|LS|NS|objc_|xpc_|dispatch_)")
STRING = "_ZNSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEE"

RETURN_ZERO = """
    free _ZdlPv getenv setenv dlclose CFRelease CFDictionaryAddValue fwrite fputc vfprintf __cxa_atexit
    PyErr_Clear pthread_setname_np _Py_Dealloc PyDict_SetItemString _ZNSt3__15mutex4lockEv
    _ZNSt3__15mutex6unlockEv _ZNSt3__15mutexD1Ev _LSSetApplicationLaunchServicesServerConnectionStatus
    _LSSetApplicationInformationItem
"""
RETURN_OBJECT = """
    dlopen CFBundleGetBundleWithIdentifier CFBundleGetMainBundle CFBundleGetInfoDictionary CFRetain
    CFDictionaryCreateMutableCopy CFStringCreateWithCString _LSApplicationCheckIn
    _LSGetCurrentApplicationASN PyTuple_New _Py_BuildValue_SizeT PyModule_GetDict PyLong_AsLong
    PyImport_ImportModule PyObject_GetAttrString PyObject_CallObject PyUnicode_DecodeUTF8 Py_BuildValue
"""
DATA = re.compile(
    r"^(Py\w+_Type|PyExc_\w+|_Py_(None|True|False)Struct|_ZT[ISV]\w+|__stderrp|kCFBooleanTrue"
    r"|__stack_chk_guard|__CFConstantStringClassReference|dyld_stub_binder)$"
)
# May be imported, as errors and C++ exceptions lead to them; to call one ends the run.
NOT_TO_BE_CALLED = re.compile(
    r"^(PyErr_(Set\w+|NoMemory|Format)|_Py_FatalErrorFunc|_PyObject_CallMethod_SizeT|_Unwind_Resume|__cxa_\w+"
    r"|__gxx_personality_v0|__error|__stack_chk_fail|dlerror|abort|snprintf|_ZSt9terminatev"
    r"|_ZNK?St(9exception|1[123](logic|length|runtime)_error)\w+|_ZNSt3__112system_error\w+"
    r"|_ZNSt3__115system_categoryEv|_ZNSt3__19to_stringEi|" + STRING + r"6insert\w+)$"
)


class NotModelled(Exception):
    """The code uses a function that the emulator does not know."""


def _processor(is_arm: bool) -> Any:
    """An emulated processor; unicorn has no type hints."""
    unicorn: Any = u
    if is_arm:
        return unicorn.Uc(u.UC_ARCH_ARM64, u.UC_MODE_ARM)
    return unicorn.Uc(u.UC_ARCH_X86, u.UC_MODE_64)


class Emulator:
    """A process with the image in its memory. `calls` are the functions of the outside called so far."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.arm = image.machine == "arm64"
        self.cpu = _processor(self.arm)
        names = ("RDI", "RSI", "RDX", "RCX", "R8", "R9")
        self.arguments: list[int] = (
            [getattr(arm, f"UC_ARM64_REG_X{n}") for n in range(6)]
            if self.arm
            else [getattr(x86, f"UC_X86_REG_{name}") for name in names]
        )
        self.result: int = arm.UC_ARM64_REG_X0 if self.arm else x86.UC_X86_REG_RAX
        self.calls: list[str] = []
        self.failure: Exception | None = None
        self.heap = HEAP
        self.slots: dict[str, int] = {}
        self.names: dict[int, str] = {}
        for base in (IMAGE, OUTSIDE, HEAP, STACK, ARGV):
            self.cpu.mem_map(base, SIZE)
        return_instruction = bytes.fromhex("c0035fd6" if self.arm else "c3")
        for at in range(OUTSIDE, OUTSIDE + SIZE, SLOT):
            self.cpu.mem_write(at, return_instruction)
        self.cpu.hook_add(u.UC_HOOK_CODE, self._outside, begin=OUTSIDE, end=OUTSIDE + SIZE)
        self.answers = self._answers()
        self._load()

    # --- memory

    def word(self, at: int) -> int:
        return int.from_bytes(self.cpu.mem_read(at, 8), "little")

    def put(self, at: int, value: int) -> None:
        self.cpu.mem_write(at, (value % 2**64).to_bytes(8, "little"))

    def text(self, at: int) -> bytes:
        return bytes(self.cpu.mem_read(at, 4096)).partition(b"\0")[0]

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.cpu.mem_read(at, size))

    def fill(self, at: int, content: bytes) -> int:
        self.cpu.mem_write(at, content)
        return at

    def alloc(self, size: int, content: bytes = b"") -> int:
        at, self.heap = self.heap, self.heap + (size + 31) // 16 * 16
        return self.fill(at, content)

    def cells(self, *values: int) -> int:
        return self.alloc(8 * len(values), struct.pack(f"<{len(values)}Q", *values))

    def new_object(self, kind: int = 0, *fields: int) -> int:
        """An object of Python's or CoreFoundation's: a reference count, a type, then 8 bytes each."""
        return self.alloc(128, struct.pack(f"<{len(fields) + 2}Q", 1 << 20, kind, *fields))

    def string(self, content: bytes) -> int:
        return self.new_object(self.str, 0, self.alloc(len(content) + 1, content + b"\0"))

    def slot(self, name: str) -> int:
        """The address of a function or datum of the outside. Raises NotModelled."""
        if name not in self.slots:
            if not (name in self.answers or DATA.match(name) or NOT_TO_BE_CALLED.match(name)):
                raise NotModelled(f"{self.image.wheel} uses {name}, which is not modelled")
            self.slots[name] = OUTSIDE + SLOT * (len(self.slots) + 1)
            self.names[self.slots[name]] = name
            if DATA.match(name):
                self.put(self.slots[name], 1 << 20)
        return self.slots[name]

    # --- loading

    def _load(self) -> None:
        self.fill(IMAGE, self.image.memory)
        for at in self.image.rebased:
            self.put(IMAGE + at, IMAGE + self.image.word(at))
        for at, name, addend in self.image.bound:
            own = self.image.symbols.get(name)
            self.put(IMAGE + at, (self.slot(name) if own is None else IMAGE + own) + addend)
        for name in ("_Py_TrueStruct", "_Py_FalseStruct"):
            self.put(self.slot(name) + 8, self.slot("PyBool_Type"))
        self.str, self.tuple = self.alloc(512), self.alloc(512)
        self.put(self.str + 168, 1 << 28)  # tp_flags: Py_TPFLAGS_UNICODE_SUBCLASS
        self.put(self.tuple + 168, 1 << 26)  # Py_TPFLAGS_TUPLE_SUBCLASS
        for function in self.image.initialisers:
            self.run(IMAGE + function)

    def _answers(self) -> dict[str, Callable[..., int | None]]:
        """What each modelled function does with its arguments and returns."""
        # argc, argv and the environment, their strings one behind the other as the kernel lays them out.
        strings = [*TITLE_ROOM.split(b"\0")[:-1], b"HOME=/Users/me", b"LANG=C"]
        at, pointers = ARGV, []
        for string in strings:
            pointers.append(self.fill(at, string + b"\0"))
            at += len(string) + 1
        argv = self.cells(*pointers[:3], 0, *pointers[3:], 0)
        places = {
            "_NSGetArgc": self.cells(3),
            "_NSGetArgv": self.cells(argv),
            "_NSGetEnviron": self.cells(argv + 32),
            "PyModule_GetState": self.alloc(512),
            "_tlv_bootstrap": self.alloc(64),
        }

        def constant(value: int) -> Callable[..., int]:
            return lambda *_: value

        def copy(to: int, start: int, size: int, *_: int) -> int:
            return self.fill(to, self.read(start, size))

        def clear(at: int, size: int, *_: int) -> int:
            return self.fill(at, bytes(size))

        def duplicate(string: int, *_: int) -> int:
            return self.alloc(len(self.text(string)) + 1, self.text(string) + b"\0")

        def find(string: int, letter: int, *_: int) -> int:
            where = self.text(string).find(letter & 255)
            return string + where if where >= 0 else 0

        def wide(string: int, *_: int) -> int:
            text = self.read(string, 96).decode("utf-32-le").partition("\0")[0]
            return self.string(text.encode())

        def parse(*arguments: int) -> int:
            """PyArg_ParseTupleAndKeywords for "s": the first variable argument is where the string goes."""
            stack = self.cpu.reg_read(arm.UC_ARM64_REG_SP) if self.arm else 0
            self.put(self.word(stack) if self.arm else arguments[4], self.word(arguments[0] + 24))
            return 1

        def wide_arguments(count: int, values: int, *_: int) -> None:
            self.fill(count, struct.pack("<i", 3))
            self.put(values, self.cells(self.alloc(64, "python\0".encode("utf-32-le"))))

        def define(definition: int, *_: int) -> int:
            self.definition = definition
            return definition

        answers: dict[str, Callable[..., int | None]] = {
            "malloc": lambda size, *_: self.alloc(size),
            "memcpy": copy,
            "bzero": clear,
            "memcmp": lambda a, b, size, *_: int(self.read(a, size) != self.read(b, size)),
            "strcmp": lambda a, b, *_: int(self.text(a) != self.text(b)),
            "strncpy": lambda to, start, size, *_: self.fill(
                to, self.text(start)[:size].ljust(size, b"\0")
            ),
            "strlen": lambda string, *_: len(self.text(string)),
            "strdup": duplicate,
            "strchr": find,
            "Py_GetArgcArgv": wide_arguments,
            "PyUnicode_FromWideChar": wide,
            "PyUnicode_AsUTF8": lambda string, *_: self.word(string + 24),
            "PyBytes_Size": lambda string, *_: len(self.text(self.word(string + 24))),
            "PyUnicode_AsEncodedString": lambda string, *_: string,
            "PyUnicode_GetDefaultEncoding": lambda *_: self.alloc(8, b"utf-8"),
            "PyArg_ParseTupleAndKeywords": parse,
            "PyModule_Create2": define,
            "CFBundleGetFunctionPointerForName": lambda _, name, *__: self.slot(
                self.text(self.word(name + 16)).decode()
            ),
            "CFBundleGetDataPointerForName": lambda *_: self.cells(self.new_object()),
            STRING + "6appendEPKcm": self._append,
            **dict.fromkeys(RETURN_ZERO.split(), constant(0)),
            **{name: lambda *_: self.new_object() for name in RETURN_OBJECT.split()},
            **{name: constant(place) for name, place in places.items()},
        }
        same = {
            "_Znwm": "malloc",
            "memmove": "memcpy",
            "__bzero": "bzero",
            "PyBytes_AsString": "PyUnicode_AsUTF8",
            "_PyArg_ParseTupleAndKeywords_SizeT": "PyArg_ParseTupleAndKeywords",
            "PyModuleDef_Init": "PyModule_Create2",
        }
        return {**answers, **{name: answers[other] for name, other in same.items()}}

    def _append(self, string: int, more: int, size: int, *_: int) -> int:
        """libc++'s std::string::append. Its three fields are laid out differently on arm64."""
        fields = struct.unpack("<3Q", self.read(string, 24))
        if self.arm:
            long, data, length = fields[2] >> 63, fields[0], fields[1]
            old = self.read(data, length) if long else self.read(string, fields[2] >> 56)
        else:
            long, data, length = fields[0] & 1, fields[2], fields[1]
            old = self.read(data, length) if long else self.read(string + 1, (fields[0] & 255) >> 1)
        new = old + self.read(more, size)
        at, room = self.alloc(len(new) + 8, new + b"\0"), len(new) // 2 * 2 + 2
        fresh = (at, len(new), room | 1 << 63) if self.arm else (room | 1, len(new), at)
        return self.fill(string, struct.pack("<3Q", *fresh))

    # --- running

    def _outside(self, cpu: Any, at: int, _size: int, _data: object) -> None:
        """The image called a function of the outside, or the outermost function returned."""
        if at == END:
            cpu.emu_stop()
            return
        name = self.names.get(at, f"code at {at:#x}")
        self.calls.append(name)
        try:
            if name not in self.answers:
                raise NotModelled(f"{self.image.wheel} calls {name}, which is not modelled")
            arguments = [cpu.reg_read(register) for register in self.arguments]
            cpu.reg_write(self.result, (self.answers[name](*arguments) or 0) % 2**64)
        except Exception as error:  # noqa: BLE001  # an exception cannot pass through the emulator's C
            self.failure = error
            cpu.emu_stop()

    def run(self, function: int, *arguments: int) -> int:
        """Call a function of the image's and return its result."""
        for register, value in zip(self.arguments, arguments):
            self.cpu.reg_write(register, value)
        top = STACK + SIZE // 2
        if self.arm:
            self.cpu.reg_write(arm.UC_ARM64_REG_SP, top)
            self.cpu.reg_write(arm.UC_ARM64_REG_LR, END)
        else:
            self.put(top - 8, END)
            self.cpu.reg_write(x86.UC_X86_REG_RSP, top - 8)
        self.failure = None
        self.cpu.emu_start(function, OUTSIDE + SIZE, count=50_000_000)
        if self.failure:
            raise self.failure
        if self.cpu.reg_read(arm.UC_ARM64_REG_PC if self.arm else x86.UC_X86_REG_RIP) != END:
            raise NotModelled(f"{self.image.wheel}: 50 million instructions were not enough")
        return int(self.cpu.reg_read(self.result))

    # --- as a Python module

    def module(self) -> types.ModuleType:
        """Do what `import` does on macOS and return the package, or the module if it has none."""
        native = types.ModuleType(self.image.name)
        if not self.run(IMAGE + self.image.symbols["PyInit_" + self.image.name.rpartition(".")[2]]):
            raise NotModelled(f"{self.image.wheel}: its initialisation raises an exception")
        methods, slots = self.word(self.definition + 64), self.word(self.definition + 72)
        while slots and (kind := self.word(slots)):
            Py_mod_exec = 2  # CPython's name
            if kind == Py_mod_exec and self.run(self.word(slots + 8), self.new_object()):
                raise NotModelled(f"{self.image.wheel}: its execution raises an exception")
            slots += 16
        while name := self.word(methods):
            flags = self.word(methods + 16)
            setattr(native, self.text(name).decode(), self._method(self.word(methods + 8), flags))
            methods += 32
        if "." not in self.image.name:
            return native
        package = types.ModuleType(self.image.name.partition(".")[0])
        package.__path__ = []
        package.__package__ = package.__name__
        modules = {package.__name__: package, self.image.name: native}
        with mock.patch.dict(sys.modules, modules), mock.patch("sys.platform", "darwin"):
            exec(self.image.package, package.__dict__)  # noqa: S102  # the package's own source
        return package

    def _method(self, function: int, flags: int) -> Callable[..., None]:
        """A function of the module's: takes one title, or keywords that are true or false."""

        def call(*titles: str, **keywords: bool) -> None:
            values = [self.string(title.encode()) for title in titles]
            METH_FASTCALL = 0x80  # CPython's name: an array, its length, the keywords' names
            if flags & METH_FASTCALL:
                array = values + [self.slot(f"_Py_{value}Struct") for value in keywords.values()]
                names = [self.string(name.encode()) for name in keywords]
                # A tuple's items begin at 24, from Python 3.14 on at 32: there is one, in both places.
                tuple_of_names = self.new_object(self.tuple, len(names), *names * 2) if names else 0
                arguments = (self.cells(*array, 0), len(values), tuple_of_names)
            else:
                arguments = (values[0] if values else 0, 0, 0)
            if not self.run(function, self.new_object(), *arguments):
                raise NotModelled(f"{self.image.wheel}: a function of its raises an exception")

        return call

    def title(self) -> str:
        """The title as `ps` would read it."""
        return self.text(ARGV).decode()

    def apple_calls(self) -> list[str]:
        """The functions of Apple's frameworks that were called since last asked."""
        calls = [call for call in self.calls if APPLE.match(call)]
        self.calls.clear()
        return calls
