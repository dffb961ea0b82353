"""Whatever is wrong with a cache directory: one warning, None, and never a crash."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from convgen.errors import CacheWarning, OptionError
from convgen.machine import Machine
from convgen.runtime.cache import Entry, KernelCache, toolchain_key

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
ENTRY = Entry("kernel", bytes(range(256)) * 3, "def kernel():\n    return 'è'\n")


def caught(action: Callable[[], object]) -> tuple[object, list[str]]:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = action()
    assert all(issubclass(item.category, CacheWarning) for item in record)
    return result, [str(item.message) for item in record]


def stored(directory: Path) -> tuple[Path, Path]:
    KernelCache(directory).put(KEY, ENTRY)
    return directory / "kernels" / f"{KEY}.obj", directory / "kernels" / f"{KEY}.py"


def test_round_trip_through_the_disk(tmp_path: Path) -> None:
    _, source = stored(tmp_path)
    assert KernelCache(tmp_path).get(KEY) == ENTRY
    assert source.read_text(encoding="utf-8") == ENTRY.source
    assert KernelCache(tmp_path).get(OTHER) is None
    assert sorted(path.suffix for path in source.parent.iterdir()) == [".obj", ".py"]


def test_an_absent_directory_is_an_ordinary_miss(tmp_path: Path) -> None:
    assert caught(lambda: KernelCache(tmp_path / "none").get(KEY)) == (None, [])
    assert not (tmp_path / "none").exists()


def test_memory_answers_when_the_disk_is_gone(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path)
    cache.put(KEY, ENTRY)
    for path in (tmp_path / "kernels").iterdir():
        path.unlink()
    assert cache.get(KEY) is ENTRY


def change(position: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[position] ^= 1
        return bytes(damaged)

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[:20], id="short-header"),
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda content: content + b"\0", id="longer"),
        pytest.param(lambda _: b"\x7fELF" + bytes(200), id="foreign"),
        pytest.param(change(0), id="magic"),
        pytest.param(change(8), id="version"),
        pytest.param(change(12), id="symbol-length"),
        pytest.param(change(16), id="code-length"),
        pytest.param(change(30), id="digest"),
        pytest.param(change(57), id="symbol"),
        pytest.param(change(-1), id="code"),
    ],
)
def test_damaged_objects_are_misses_and_are_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    obj, _ = stored(tmp_path)
    obj.write_bytes(damage(obj.read_bytes()))
    result, messages = caught(lambda: KernelCache(tmp_path).get(KEY))
    assert result is None
    assert len(messages) == 1
    assert str(tmp_path) in messages[0]
    KernelCache(tmp_path).put(KEY, ENTRY)
    assert caught(lambda: KernelCache(tmp_path).get(KEY)) == (ENTRY, [])


def test_an_edited_source_is_a_miss(tmp_path: Path) -> None:
    _, source = stored(tmp_path)
    source.write_text("import os\n")
    result, messages = caught(lambda: KernelCache(tmp_path).get(KEY))
    assert (result, len(messages)) == (None, 1)


def test_an_entry_under_another_key_is_a_miss(tmp_path: Path) -> None:
    for path in stored(tmp_path):
        path.rename(path.with_stem(OTHER))
    result, messages = caught(lambda: KernelCache(tmp_path).get(OTHER))
    assert (result, len(messages)) == (None, 1)


def test_one_warning_for_each_directory(tmp_path: Path) -> None:
    def misuse() -> None:
        for name in ("a", "b"):
            (tmp_path / name).write_text("a file")
            for _ in range(2):
                cache = KernelCache(tmp_path / name)
                assert cache.get(KEY) is None
                cache.put(KEY, ENTRY)
                assert cache.get(KEY) == ENTRY

    assert len(caught(misuse)[1]) == 2


def test_a_folder_in_the_place_of_an_entry(tmp_path: Path) -> None:
    (tmp_path / "kernels" / f"{KEY}.obj").mkdir(parents=True)

    def use() -> Entry | None:
        cache = KernelCache(tmp_path)
        assert cache.get(KEY) is None
        cache.put(KEY, ENTRY)
        return cache.get(KEY)

    result, messages = caught(use)
    assert result == ENTRY
    assert len(messages) == 1
    assert not [path for path in (tmp_path / "kernels").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_refused_writes_keep_the_entry_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    cache = KernelCache(tmp_path)
    _, messages = caught(lambda: cache.put(KEY, ENTRY))
    assert len(messages) == 1
    assert os.strerror(code) in messages[0]
    assert cache.get(KEY) is ENTRY
    assert not list((tmp_path / "kernels").iterdir())


def test_a_write_cut_short_leaves_nothing(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        _, messages = caught(lambda: cache.put(KEY, ENTRY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(messages) == 1
    assert caught(lambda: KernelCache(tmp_path).get(KEY)) == (None, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    cache = KernelCache(tmp_path)
    _, messages = caught(lambda: cache.put(KEY, ENTRY))
    tmp_path.chmod(0o700)
    assert len(messages) == 1
    assert cache.get(KEY) is ENTRY


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "ABCDEF0123456789", KEY + "\n", "abc"])
def test_malformed_keys_are_typed_errors(tmp_path: Path, key: str) -> None:
    cache = KernelCache(tmp_path)
    with pytest.raises(OptionError, match="key="):
        cache.get(key)
    with pytest.raises(OptionError, match="key="):
        cache.put(key, ENTRY)


WRITER = """
import sys, warnings
warnings.simplefilter("error")
from convgen.runtime.cache import Entry, KernelCache
entry = Entry("kernel", bytes(range(256)) * 4000, "x = 1\\n")
for _ in range(40):
    KernelCache(sys.argv[1]).put("0123456789abcdef", entry)
    assert KernelCache(sys.argv[1]).get("0123456789abcdef") == entry
"""


def test_processes_may_write_one_key_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writers = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(list((tmp_path / "kernels").iterdir())) == 2


def test_the_toolchain_key_covers_machine_and_compiler_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Machine.host()

    def fresh(machine: Machine = host) -> str:
        toolchain_key.cache_clear()
        return toolchain_key(machine)

    monkeypatch.delenv("NUMBA_OPT", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    plain = fresh()
    assert plain == fresh()
    assert fresh(dataclasses.replace(host, features=host.features + ",-x")) != plain
    assert fresh(dataclasses.replace(host, cpu="other")) != plain
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert fresh() == plain
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert fresh() != plain
    monkeypatch.undo()
    toolchain_key.cache_clear()
