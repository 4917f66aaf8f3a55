"""The doctor's tables: each row is seen by its example, and by nothing else."""

from __future__ import annotations

import re

import pytest

from airflow_setproctitle_shim.diagnosis import causes, dumps, pieces, words


def read(line: str) -> words.Word | None:
    raw = line.encode()
    told = words.read(raw, [literal for literal in words.SOUGHT if literal in raw])
    return told.word if told else None


def without(word: words.Word) -> dict[bytes, list[words.Row]]:
    return {
        literal: [row for row in rows if row.word is not word]
        for literal, rows in words.BY_LITERAL.items()
    }


@pytest.mark.parametrize("word", words.WORDS, ids=[word.example for word in words.WORDS])
def test_a_wording_is_seen_by_its_own_row_and_by_no_more_general_one(
    word: words.Word, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert word.sought in word.example
    for line in (word.example, f"{word.example}\r\n", f"\x1b[31mweb.1 | {word.example}\x1b[0m"):
        assert read(line) is word or word.pattern.endswith("$)") or "|$)" in word.pattern
    assert read(word.example) is word
    monkeypatch.setattr(words, "BY_LITERAL", without(word))
    left = read(word.example)
    assert left is None or left.cause != word.cause


@pytest.mark.parametrize(
    "word",
    [word for word in words.WORDS if "(?P<killed>" in word.pattern],
    ids=lambda word: word.who,
)
def test_a_wording_with_a_number_knows_sigkills(word: words.Word) -> None:
    line = re.sub(r"139|11\b", lambda number: {"139": "137", "11": "9"}[number[0]], word.example)
    raw = line.encode()
    told = words.read(raw, [literal for literal in words.SOUGHT if literal in raw])
    assert told and told.cause == "killed" and line != word.example


def test_what_is_sought_has_no_digit() -> None:
    """As logs are searched without theirs."""
    assert pieces.LITERALS and not [it for it in pieces.LITERALS if re.search(rb"\d", it)]


@pytest.mark.parametrize("word", words.WORDS, ids=[word.example for word in words.WORDS])
def test_numbers_matter_only_where_the_code_says_so(word: words.Word) -> None:
    """As lines that differ in other numbers only are read once."""
    if word.sought.encode() not in words.WITH_NUMBERS:
        for digit in "0123456789":
            assert read(re.sub(r"\d", digit, word.example)) is word
    else:
        key = pieces.LONG_NUMBER.sub(b"0000", word.example.encode()).decode()
        assert read(key) is word
        assert read(f"{key} 2026 10:05:27,123") is word or "$" in word.pattern


@pytest.mark.parametrize("row", words.HARMLESS, ids=[row.example for row in words.HARMLESS])
def test_what_looks_like_a_death_and_is_none_is_known_by_its_own_row(
    row: words.Harmless, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(row.example) is None
    patterns = words.HARMLESS_BY_LITERAL[row.sought.encode()]
    others = [pattern for pattern in patterns if pattern.pattern != row.pattern.encode()]
    assert len(others) == len(patterns) - 1
    monkeypatch.setitem(words.HARMLESS_BY_LITERAL, row.sought.encode(), others)
    assert read(row.example)


@pytest.mark.parametrize("head", dumps.HEADS, ids=[head.example for head in dumps.HEADS])
def test_the_first_line_of_a_dump_is_known_by_its_own_row(head: dumps.Head) -> None:
    line = head.example.encode()
    assert head.sought in line and dumps.HEAD.search(line)
    others = b"|".join(other.pattern for other in dumps.HEADS if other is not head)
    assert not re.search(others, line)


# What each cause looks like in a native stack or in macOS's notes, and in Python's frames.
NATIVE = {
    "setproctitle": ["_setproctitle.cpython-312-darwin.so 0x1", "x darwin_set_process_title"],
    "fork": [
        "libsystem_pthread.dylib _pthread_atfork_child_handlers",
        "Network nw_settings_child_has_forked()",
    ],
    "_scproxy": [
        "_scproxy.cpython-312-darwin.so get_proxies",
        "SystemConfiguration SCDynamicStoreCopyProxiesWithOptions",
        "CFNetwork CFNetworkCopySystemProxySettings",
    ],
    "libpq": [
        "Heimdal krb5_init_context",
        "libgssapi gss_acquire_cred",
        "libpq pg_GSS_have_cred_cache",
    ],
    "network": [
        "Security x",
        "security x",
        "CFNetwork x",
        "Network x",
        "NetworkExtension x",
        "libnetwork.dylib x",
        "libsystem_info.dylib getaddrinfo",
        "x nw_path_evaluate",
        "x SecTrustEvaluate",
        "x SecKeychainFind",
    ],
    "blas": [
        "libBLAS.dylib cblas_dgemm",
        "libLAPACK.dylib dgesv",
        "libvDSP.dylib x",
        "libBNNS.dylib x",
        "vecLib x",
        "Accelerate x",
        "libomp.dylib x",
        "libiomp5.dylib x",
        "libgomp x",
        "x __kmp_suspend_64",
    ],
    "objective-c": [
        "libobjc.A.dylib performForkChildInitialize(objc_class*, objc_class*)",
        "x objc_initializeAfterForkError",
        "objc[1]: +[A initialize] in another thread when fork() was called.",
    ],
    "corefoundation": ["CoreFoundation __THE_PROCESS_HAS_FORKED_AND_YOU_CANNOT_USE"],
}
GENERAL = {
    "setproctitle": ["LaunchServices _LSApplicationCheckIn", "x _LSSetApplicationInformationItem"],
    "libpq": ["libpq.5.dylib PQconnectPoll"],
    "objective-c": ["Namespace OBJC, Code 1"],
    "corefoundation": ["CoreFoundation CFBundleGetMainBundle"],
    "libdispatch": ["libdispatch.dylib _dispatch_lane_push", "libxpc.dylib xpc_x"],
}


@pytest.mark.parametrize(
    ("cause", "line"), [(cause, one) for cause, many in NATIVE.items() for one in many]
)
def test_a_native_frame_tells_its_cause_forked_or_not(cause: str, line: str) -> None:
    for lines in ((line,), ("libdispatch.dylib x", line, "Python y")):
        for is_forked in (True, False):
            found, number = causes.of_native(lines, is_forked)
            assert (found.name, lines[number]) == (cause, line)


@pytest.mark.parametrize(
    ("cause", "line"), [(cause, one) for cause, many in GENERAL.items() for one in many]
)
def test_what_many_libraries_go_through_counts_after_fork_if_nothing_else_is_told(
    cause: str, line: str
) -> None:
    assert causes.of_native((line,), is_forked=True) == (causes.BY_NAME[cause], 0)
    assert causes.of_native((line,), is_forked=False)[0] is causes.UNKNOWN
    specific = NATIVE["blas"][0]
    assert causes.of_native((line, specific), is_forked=True) == (causes.BY_NAME["blas"], 1)


def test_a_cause_that_stands_first_is_told_where_two_are_shown() -> None:
    order = [cause for cause in causes.CAUSES if cause.name in NATIVE]
    for first, second in zip(order, order[1:]):
        lines = (NATIVE[second.name][0], NATIVE[first.name][0])
        assert causes.of_native(lines, is_forked=True)[0] is first


def test_each_cause_names_an_issue_and_says_what_it_is_sure_of() -> None:
    for cause in causes.ALL:
        assert cause.says.endswith(".") and cause.helps
        assert cause.source.startswith("https://") or cause in (causes.UNKNOWN, causes.NOT_FORK)
        assert bool(cause.often) <= bool(cause.was_doing)
