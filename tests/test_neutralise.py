"""A native setproctitle that was imported first is neutralised where it stands, and given back exactly."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from string import ascii_letters
from typing import Any

import pytest
from environments import STAND_IN, Venv
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from, text

import airflow_setproctitle_shim as shim

NAMES = ("setproctitle", "getproctitle", "setthreadtitle", "getthreadtitle")


def is_of(package: str, name: str) -> bool:
    """Whether a module of this name is the package or in it."""
    return name.partition(".")[0] == package


def forget() -> None:
    """Take setproctitle out of sys.modules, so that the next import is the first."""
    for name in [name for name in sys.modules if is_of("setproctitle", name)]:
        del sys.modules[name]


def identities(module: types.ModuleType) -> dict[str, int]:
    """Which object each global is; a wrapt proxy equals what it wraps, so == would not tell."""
    return {name: id(value) for name, value in vars(module).items()}


def is_native(function: object) -> bool:
    """Whether it is a C function and not a proxy for one, which isinstance() would not tell."""
    return type(function) is types.BuiltinFunctionType


@pytest.fixture
def native() -> Iterator[types.ModuleType]:
    """The real setproctitle, imported before the shim is on."""
    forget()
    yield importlib.import_module("setproctitle")
    shim.deactivate()
    forget()


@pytest.fixture
def elsewhere(native: types.ModuleType) -> Iterator[types.ModuleType]:
    """A module that did `from setproctitle import setproctitle, getproctitle as title`."""
    module = types.ModuleType("elsewhere")
    module.setproctitle = native.setproctitle  # type: ignore[attr-defined]
    module.title = native.getproctitle  # type: ignore[attr-defined]
    sys.modules["elsewhere"] = module
    yield module
    del sys.modules["elsewhere"]


def test_module_and_imported_names_stop_reaching_native_code(
    native: types.ModuleType, elsewhere: types.ModuleType
) -> None:
    before = native.getproctitle()
    shim.activate()
    elsewhere.setproctitle("a title")
    assert native.getproctitle() == elsewhere.title() == "a title"
    shim.deactivate()
    assert native.getproctitle() == before


def test_deactivate_gives_back_every_original_object(
    native: types.ModuleType, elsewhere: types.ModuleType
) -> None:
    modules = [native, native._setproctitle, elsewhere]
    before = [identities(module) for module in modules]
    shim.activate()
    assert all(identities(module) != names for module, names in zip(modules, before))
    shim.deactivate()
    assert [identities(module) for module in modules] == before


def test_names_imported_while_active_are_native_again_afterwards(native: types.ModuleType) -> None:
    original = native.setproctitle
    shim.activate()
    late = sys.modules["late"] = types.ModuleType("late")
    try:
        late.__dict__["setproctitle"] = native.setproctitle
        kept = native.getproctitle
        shim.deactivate()
        assert late.__dict__["setproctitle"] is original
        assert kept() == native.getproctitle()
    finally:
        del sys.modules["late"]


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_module_that_was_imported_from_neutralised_native_code_is_given_back(
    native: types.ModuleType, reloaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sys.modules["setproctitle"]
    shim.activate()
    sys.meta_path.remove(shim.finder)  # type: ignore[arg-type]  # as by somebody who restores a saved copy
    late = importlib.import_module("setproctitle")
    user = types.ModuleType("user")
    vars(user).update({name: vars(late)[name] for name in NAMES})
    monkeypatch.setitem(sys.modules, "user", user)
    shim.activate()
    if reloaded:
        importlib.reload(late)
    shim.deactivate()
    assert all(is_native(vars(module)[name]) for module in (late, user) for name in NAMES)


@pytest.mark.parametrize(("theirs", "our"), [shim.SERVED, shim.SERVED[::-1]])
def test_the_replacement_beside_a_native_module_is_left_alone(
    native: types.ModuleType, theirs: str, our: str
) -> None:
    natives = {name: sys.modules.pop(name) for name in shim.SERVED}
    shim.activate()
    ours = importlib.import_module(our)
    before = identities(ours)
    sys.modules[theirs] = natives[theirs]
    shim.activate()
    assert not is_native(natives[theirs].setproctitle) and identities(ours) == before


def test_a_name_rebound_by_somebody_else_meanwhile_is_left_alone(
    native: types.ModuleType, elsewhere: types.ModuleType
) -> None:
    shim.activate()
    elsewhere.__dict__["setproctitle"] = mine = lambda title: None
    shim.deactivate()
    assert elsewhere.setproctitle is mine


def test_arguments_are_checked_as_before(native: types.ModuleType) -> None:
    shim.activate()
    with pytest.raises(TypeError):
        native.setproctitle(1)
    with pytest.raises(ValueError, match="embedded null character"):
        native.setproctitle("a\0b")


def test_neutralised_functions_are_pickled_by_name(native: types.ModuleType) -> None:
    shim.activate()
    assert pickle.loads(pickle.dumps(native.setproctitle)) is native.setproctitle


def test_no_fresh_native_function_can_be_imported(native: types.ModuleType) -> None:
    shim.activate()
    c_module = sys.modules.pop("setproctitle._setproctitle")
    assert importlib.import_module("setproctitle._setproctitle").__file__ == shim.REPLACEMENT
    assert PathFinder.find_spec("setproctitle._setproctitle", native.__path__) is None
    shim.deactivate()
    assert native._setproctitle is c_module


class HostileDict:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # hostile as that is
        raise RuntimeError("no __dict__ for you")


class HostileGetattribute(types.ModuleType):
    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"somebody asked for {name}")


class ChangesWhileWalked(types.ModuleType):
    """Its globals change whenever one of them is compared with something."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        namespace = vars(self)

        class Restless:
            def __eq__(self, other: object) -> bool:
                namespace[f"new{len(namespace)}"] = None
                return True

            __hash__ = None  # type: ignore[assignment]

        self.restless = Restless()


HOSTILE: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "a number": lambda: 7,
    "a class": lambda: types.ModuleType,
    "raising __dict__": HostileDict,
    "raising __getattribute__": lambda: HostileGetattribute("hostile"),
    "changing dict": lambda: ChangesWhileWalked("restless"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_entries_of_sys_modules_do_no_harm(
    native: types.ModuleType, elsewhere: types.ModuleType, kind: str
) -> None:
    original = elsewhere.setproctitle
    sys.modules["aaa_hostile"] = HOSTILE[kind]()  # type: ignore[assignment]
    try:
        shim.activate()
        assert elsewhere.setproctitle is not original
        shim.deactivate()
        assert elsewhere.setproctitle is original
    finally:
        del sys.modules["aaa_hostile"]


def test_lazy_modules_are_not_loaded(native: types.ModuleType) -> None:
    spec = importlib.util.find_spec("this")
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = sys.modules["this"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(lazy)
        shim.activate()
        assert "Zen" not in repr(object.__getattribute__(lazy, "__dict__").get("s"))
        assert object.__getattribute__(lazy, "__class__").__name__ == "_LazyModule"
    finally:
        del sys.modules["this"]


@pytest.mark.parametrize(
    "stranger", [object(), types.ModuleType("setproctitle")], ids=["object", "empty module"]
)
def test_a_setproctitle_without_functions_is_no_obstacle(native: types.ModuleType, stranger: Any) -> None:
    sys.modules["setproctitle"] = stranger
    shim.activate()
    shim.deactivate()
    assert sys.modules["setproctitle"] is stranger


def test_verbose_python_says_how_many_places_were_rebound() -> None:
    code = "from setproctitle import setproctitle; import airflow_setproctitle_shim as s; s.activate()"
    done = subprocess.run([sys.executable, "-v", "-c", code], capture_output=True, text=True, check=True)
    # 4 in setproctitle, 4 in setproctitle._setproctitle, 1 in __main__
    assert "airflow-setproctitle-shim: neutralised setproctitle in 9 places" in done.stderr


FORKING = """
import os, sys
import first, second, gunicorn.util
if sys.argv[1] == "on":
    import airflow_setproctitle_shim
    airflow_setproctitle_shim.activate()
died = 0
for set_title in (first.setproctitle, second.setproctitle.setproctitle, gunicorn.util._setproctitle):
    pid = os.fork()
    if not pid:
        set_title("worker")
        os._exit(0)
    died += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print(died)
"""


@pytest.mark.parametrize(("switch", "died"), [("off", 3), ("on", 0)])
def test_children_of_a_process_that_imported_it_everywhere_survive_late_activation(
    make_venv: Any, tmp_path: Any, switch: str, died: int
) -> None:
    venv: Venv = make_venv("gunicorn==23.0.0")
    (tmp_path / "first.py").write_text("from setproctitle import setproctitle\n")
    (tmp_path / "second.py").write_text("import setproctitle\n")
    done = venv.run(
        "-c",
        FORKING,
        switch,
        PYTHONPATH=f"{STAND_IN}:{tmp_path}",
        AIRFLOW_SETPROCTITLE_SHIM="off",
    )
    assert done.stdout.strip() == str(died)


COPIES = [copy.copy, copy.deepcopy, lambda path: pickle.loads(pickle.dumps(path))]


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: active means no native function, inactive the originals.

    So it is after activate() and deactivate() of any copy of the package. After sys.meta_path was
    restored behind its back, the copies still agree, and the next of these calls sets all right.
    """

    def __init__(self) -> None:
        super().__init__()
        forget()
        self.modules = {name: module for name, module in sys.modules.items() if is_of(shim.__name__, name)}
        self.copies: list[Any] = [shim]
        self.meta_path = list(sys.meta_path)
        self.saved: list[Any] = []
        self.restored = False
        self.title = ""
        self.user = sys.modules["user_of_setproctitle"] = types.ModuleType("user_of_setproctitle")

    @rule()
    def import_it(self) -> None:
        module = importlib.import_module("setproctitle")
        for name in NAMES:
            setattr(self.user, name, getattr(module, name))

    @rule(number=integers(0, 9))
    def activate(self, number: int) -> None:
        self.copies[number % len(self.copies)].activate()
        assert shim.is_active()
        self.restored = False

    @rule(number=integers(0, 9))
    def deactivate(self, number: int) -> None:
        self.copies[number % len(self.copies)].deactivate()
        assert not shim.is_active()
        self.restored = False

    @precondition(lambda self: "setproctitle" in sys.modules)
    @rule()
    def reload(self) -> None:
        importlib.reload(sys.modules["setproctitle"])

    @precondition(lambda self: "setproctitle" in sys.modules)
    @rule()
    def delete(self) -> None:
        del sys.modules["setproctitle"]

    @rule(submodules=booleans())
    def import_our_package_anew(self, submodules: bool) -> None:
        for name in [name for name in sys.modules if is_of(shim.__name__, name)]:
            if submodules or name == shim.__name__:
                del sys.modules[name]
        self.copies.append(importlib.import_module(shim.__name__))

    @rule()
    def reload_our_package(self) -> None:
        importlib.reload(sys.modules[shim.__name__])

    @rule(how=sampled_from(COPIES))
    def save_the_finders(self, how: Callable[[Any], Any]) -> None:
        # Only ours: pytest's cannot be copied. The others are put back by teardown().
        self.saved = how([finder for finder in sys.meta_path if finder not in self.meta_path])

    @rule()
    def restore_the_finders(self) -> None:
        sys.meta_path[:] = [*self.saved, *self.meta_path]
        self.restored = True

    @precondition(lambda self: shim.is_active() and not self.restored)
    @rule(title=text(ascii_letters, min_size=1))
    def set_title(self, title: str) -> None:
        importlib.import_module("setproctitle").setproctitle(title)
        self.title = title

    @invariant()
    def all_copies_agree_and_there_is_one_finder(self) -> None:
        active = shim.is_active()
        assert [one.is_active() for one in self.copies] == [active] * len(self.copies)
        assert len(sys.meta_path) == len(self.meta_path) + active

    @invariant()
    def active_means_no_native_function_within_reach(self) -> None:
        if shim.is_active() and not self.restored:
            reachable = [vars(module) for module in (self.user, *self.setproctitle())]
            assert not any(is_native(names.get(name)) for names in reachable for name in NAMES)
            assert not self.title or importlib.import_module("setproctitle").getproctitle() == self.title

    @invariant()
    def inactive_means_the_original_functions(self) -> None:
        if not shim.is_active() and not self.restored:
            for module in self.setproctitle():
                assert all(is_native(vars(module)[name]) for name in NAMES)
                assert module.__path__ and module.__spec__
                assert not str(module.__spec__.origin).endswith("replacement.py")
            assert not any(type(value).__name__ == "Neutralised" for value in vars(self.user).values())

    def setproctitle(self) -> list[types.ModuleType]:
        """The module now in sys.modules, if there is one."""
        return [sys.modules[name] for name in ("setproctitle",) if name in sys.modules]

    def teardown(self) -> None:
        self.copies[-1].deactivate()
        self.restored = False
        self.inactive_means_the_original_functions()
        sys.meta_path[:] = self.meta_path
        del sys.modules["user_of_setproctitle"]
        forget()
        for name in [name for name in sys.modules if is_of(shim.__name__, name)]:
            del sys.modules[name]
        sys.modules.update(self.modules)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=20)
