"""`show`, `explain` and `check`: what is chosen, in which order, and a reason for every field."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from sonew import dispatch, paths
from sonew.backends import cpu_torch
from sonew.config import Problem
from sonew.tuned import SIZE_FIELDS, Entry, Key, make_key
from sonew_autotune.commands import inspection
from sonew_autotune.store import winners
from sonew_kernels.spec import source_hash
from tests.autotune.commands.command_line import entries, invoke
from tests.autotune.entries import KEY, sound_entry, static_entry

SIZE = 3000
ASK = ("explain", "--band", "1", "--size", str(SIZE), "--device", "cpu")


def save(*new: Entry) -> None:
    """Put entries into the test's own store."""
    winners.save_all(paths.store_path(), new, warn=pytest.fail)


def entry_here(evidence: dict[str, Any] | None = None, *, segment: int = 4096, **changes: Any) -> Entry:
    """An entry that fits the problem of ASK on this machine."""
    key = make_key(Problem(device="cpu", band=1, total=SIZE, median=SIZE), "cpu", cpu_torch.environment(), source_hash("cpu"))
    return replace(sound_entry(evidence, segment=segment), key=replace(key, **changes))


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A shipped store of the test's own."""
    path = tmp_path / "shipped.json"
    for module in (dispatch, inspection):
        monkeypatch.setattr(module, "shipped_store_paths", lambda: [path])
    return path


def ratio(median: float) -> dict[str, Any]:
    return {"ratio_to_default": {"median": median, "low": median, "high": median}}


LISTED = (
    sound_entry({**ratio(0.5), "date": "2026-11-03T00:00:00Z"}, band=2, total_log2=20),
    sound_entry({**ratio(0.9), "date": "2026-11-02T00:00:00Z"}, band=1, device="Other CPU"),
    sound_entry({**ratio(0.7), "date": "2026-11-01T00:00:00Z"}, band=4, total_log2=22, capability="avx512f"),
    static_entry({**ratio(0.8), "date": "2026-11-04T00:00:00Z"}, band=1, total_log2=18),
)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), [0, 1, 2, 3]),
        (("--band", "1"), [1, 3]),
        (("--band", "1", "--band", "4"), [1, 2, 3]),
        (("--kernel", "triton"), [3]),
        (("--device", "other"), [1]),
        (("--device", "AVX512"), [2]),
        (("--device", "cuda:90"), [3]),
        (("--kind", "measured"), [0, 1, 2]),
        (("--kind", "static"), [3]),
        (("--kind", "static", "--band", "2"), []),
        (("--usable",), []),
        (("--sort", "band"), [1, 3, 0, 2]),
        (("--sort", "size"), [1, 3, 0, 2]),
        (("--sort", "gain"), [0, 2, 3, 1]),
        (("--sort", "date"), [3, 0, 1, 2]),
        (("--sort", "device"), [1, 0, 2, 3]),
        (("--sort", "gain", "--kind", "measured"), [0, 2, 1]),
    ],
)
def test_show_chooses_and_orders(arguments: tuple[str, ...], shown: list[int]) -> None:
    save(*LISTED)
    code, out, err = invoke("show", "--json", *arguments)
    assert (code, err) == (0, "")
    found = entries(out)
    assert [{name: row[name] for name in ("key", "kind", "config", "evidence")} for row in found] == [LISTED[i].as_json() for i in shown]
    assert all(row["name"] == winners.short_name(LISTED[i]) for row, i in zip(found, shown, strict=True))


def test_show_says_what_is_usable_here_and_why_the_rest_is_not() -> None:
    save(entry_here(), LISTED[1])
    (usable,) = entries(invoke("show", "--json", "--usable")[1])
    assert (usable["usable"], usable["reasons"], usable["key"]) == (True, [], asdict(entry_here().key))
    other = entries(invoke("show", "--json")[1])[1]
    assert other["usable"] is False
    assert "device is 'Other CPU', here " in other["reasons"][0]
    out = invoke("show")[1]
    assert all(winners.short_name(row) in out for row in (entry_here(), LISTED[1]))
    assert "1.500 ms, 2.00x" in out
    assert "None of the 2 stored entries fits" in invoke("show", "--band", "8")[1]


def test_a_gpus_entry_on_machines_with_and_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = static_entry(source_hash=source_hash("triton"))
    environment: dict[str, Any] = {"device": "interpreter", "capability": "interpreter", "threads": 0, "toolchain": "triton 9"}
    monkeypatch.setattr(inspection, "_environment", lambda _kernel: environment)
    stale = "stale: toolchain is 'triton 3.7.1', here 'triton 9'"
    assert inspection.reasons_here(entry) == ("no GPU can be used here, and this is for cuda:90", stale)
    environment.update(device="NVIDIA H100", capability="cuda:90")
    assert inspection.reasons_here(entry) == (stale,)
    environment.update(capability="cuda:80", toolchain="triton 3.7.1")
    assert inspection.reasons_here(entry) == ("capability is 'cuda:90', here 'cuda:80'",)


def test_show_details_is_everything_about_one_entry() -> None:
    save(*LISTED)
    name = winners.short_name(LISTED[2])
    code, out, _ = invoke("show", "--details", name[:6].upper())
    assert code == 0
    for line in (
        f"{name}, user store, measured",
        "Usable here: no",
        "  capability: avx512f",
        '   "median": 0.7',
        "Configuration: block=1024",
    ):
        assert line in out
    assert [row["name"] for row in entries(invoke("show", "--details", name, "--json")[1])] == [name]
    code, out, err = invoke("show", "--details", "zzz")
    assert (code, out) == (2, "")
    assert "details='zzz' is the name of no entry here" in err
    assert name in err
    code, _, err = invoke("show", "--details", name, "--band", "1")
    assert code == 2, "filters hold for details, too"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--band", "9"), "band=9 is not one of"),
        (("--kernel", "metal"), "kernel='metal' is not one of ['triton', 'cpu']. Pass for example --kernel cpu."),
        (("--kind", "guess"), "kind='guess' is not one of"),
        (("--sort", "speed"), "sort='speed' is not one of ['band', 'size', 'gain', 'date', 'device']"),
    ],
)
def test_a_wrong_filter_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    for command in (("show",), ("export", "x.json")) if arguments[0] != "--sort" else (("show",),):
        code, out, err = invoke(*command, *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert message in err


HOSTILE = "\x1b]0;gotcha\x07[bold red]\u202e\ud800\r\n"


def test_stored_texts_cannot_steer_the_terminal() -> None:
    evil = sound_entry({"result": HOSTILE, "date": HOSTILE}, device=HOSTILE, capability=HOSTILE, toolchain=HOSTILE)
    fits = entry_here({"result": HOSTILE, "date": HOSTILE})
    save(evil, fits)
    for command in (("show",), ("check",), ASK, ("show", "--details", winners.short_name(evil)), ("show", "--json"), (*ASK, "--json")):
        _, out, err = invoke(*command)
        bad = [character for character in out + err if not (character.isprintable() or character == "\n")]
        assert bad == [], command
    save(sound_entry(device="[red]", band=4))
    assert "avx2 [red] " in invoke("show", "--band", "4")[1], "shown as it is, not as markup"
    shown = "".join(invoke("show", "--details", winners.short_name(evil))[1].split())
    assert "device:\\x1b]0;gotcha\\x07[boldred]\\u202e\\ud800\\r\\n" in shown


def other_value(name: str, value: object) -> Any:
    """Something else that the field could hold."""
    if isinstance(value, int):
        return value + 1
    others = {"kernel": "cpu", "entry": "direct", "chain": "row", "param_dtype": "bfloat16", "grad_dtype": "bfloat16"}
    return others.get(name, "bfloat16" if name.endswith("dtype") else f"not {value}")


def test_explain_has_a_reason_for_every_field() -> None:
    names = [field.name for field in fields(Key) if field.name != "kernel"]  # another kernel's entries are not looked up
    here = entry_here()
    changed = {name: replace(here, key=replace(here.key, **{name: other_value(name, getattr(here.key, name))})) for name in names}
    save(*changed.values())
    code, out, _ = invoke(*ASK, "--json")
    (explained,) = entries(out)
    assert code == 0
    assert explained["key"] == asdict(here.key)
    by_key = {json.dumps(row["key"]): row for row in explained["stored"]}
    assert len(by_key) == len(names)
    lines = invoke(*ASK)[1]
    for name, entry in changed.items():
        row = by_key[json.dumps(asdict(entry.key))]
        have, want = getattr(entry.key, name), getattr(here.key, name)
        sizes = name in SIZE_FIELDS
        assert {field["field"]: field["fits"] for field in row["fields"]} == {f.name: f.name != name or sizes for f in fields(Key)}
        (told,) = [field for field in row["fields"] if field["field"] == name]
        assert told == {"field": name, "stored": have, "wanted": want, "fits": sizes}
        stale = "stale: " if name in ("toolchain", "source_hash") else ""
        assert row["reasons"] == ([] if sizes else [f"{stale}{name} is {have!r}, here {want!r}"])
        assert row["distance"] == int(sizes)
        assert sizes or f"    {row['reasons'][0]}" in lines


def test_explain_says_why_a_fitting_entry_stands_behind(shipped: Path) -> None:
    used = entry_here(segment=16384)
    save(used, entry_here(total_log2=14), replace(entry_here(), kind="static"))
    winners.save(shipped, entry_here(segment=65536), warn=pytest.fail)
    stored = entries(invoke(*ASK, "--json")[1])[0]["stored"]
    assert [(row["used"], row["kind"], row["store"], row["beaten"]) for row in stored] == [
        (True, "measured", "user store", None),
        (False, "measured", "shipped store", "it fits as well, but the one used comes first (user store)"),
        (False, "measured", "user store", "it fits, but its sizes are 2 steps away, those of the one used 0"),
        (False, "static", "user store", "it fits, but it is static, and a measured one fits, too"),
    ]
    lines = invoke(*ASK)[1]
    assert all(row["beaten"] is None or f"    {row['beaten']}" in lines for row in stored)


@pytest.mark.parametrize(
    ("mode", "used", "reasons"),
    [
        ("on", "user store", {"user store": [], "shipped store": []}),
        ("pinned", "shipped store", {"user store": ["tuning='pinned' reads the shipped store only"], "shipped store": []}),
        ("off", None, {"user store": ["tuning='off' reads no store"], "shipped store": ["tuning='off' reads no store"]}),
    ],
)
def test_explain_says_what_each_mode_reads(shipped: Path, mode: str, used: str | None, reasons: dict[str, list[str]]) -> None:
    save(entry_here(segment=16384), entry_here(band=2))
    winners.save(shipped, entry_here(segment=65536), warn=pytest.fail)
    code, out, _ = invoke(*ASK, "--tuning", mode, "--json")
    (explained,) = entries(out)
    assert code == 0
    fitting = {row["store"]: row for row in explained["stored"] if row["key"]["band"] == 1}
    assert {store: row["reasons"] for store, row in fitting.items()} == reasons
    assert [store for store, row in fitting.items() if row["used"]] == ([used] if used else [])
    other = next(row for row in explained["stored"] if row["key"]["band"] == 2)
    assert other["reasons"] == [*reasons["user store"], "band is 2, here 1"]
    assert explained["plan"]["config"]["segment"] == {"user store": 16384, "shipped store": 65536, None: 16384}[used]
    lines = invoke(*ASK, "--tuning", mode)[1]
    assert all(f"    {reason}" in lines for row in fitting.values() for reason in row["reasons"])


def test_explain_says_that_a_backend_has_nothing_to_tune() -> None:
    save(entry_here())
    out = invoke(*ASK, "--backend", "reference")[1]
    assert "Looked up: nothing, backend reference has nothing to tune" in out


def test_check_of_a_sound_store_notes_what_other_machines_use() -> None:
    save(entry_here(), replace(entry_here(), key=replace(entry_here(band=2).key, toolchain="g++ 1")), LISTED[1])
    code, out, err = invoke("check", "--json")
    assert (code, err) == (0, "")
    store, here, stale, other = entries(out)
    assert (store["index"], store["status"], store["path"]) == (None, "ok", str(paths.store_path()))
    assert (here["index"], here["status"], here["problems"], here["notes"], here["key"]) == (0, "ok", [], [], asdict(entry_here().key))
    assert stale["status"] == other["status"] == "ok"
    assert "stale: toolchain is 'g++ 1'" in stale["notes"][0]
    assert stale["notes"][0].endswith("sonew-autotune run makes it anew")
    assert "device is 'Other CPU'" in other["notes"][0]
    text = invoke("check")[1]
    assert "3 entries, 3 sound, 0 wrong." in text
    assert "    note: not used on this machine: stale: toolchain" in text


def test_check_tells_a_wrong_entry_from_an_unreadable_store(shipped: Path) -> None:
    save(entry_here(), sound_entry(threads=0))
    code, out, _ = invoke("check")
    assert code == 1
    assert f"  entry 1 {winners.short_name(sound_entry(threads=0))} (band 1, avx2 Some CPU): wrong" in out
    assert "    key.threads is 0, allowed on a cpu: 1 to 4096" in out
    shipped.write_text('{"schema_version": 2, "entries": []}')
    code, out, _ = invoke("check", "--json")
    assert code == 2
    assert [row["status"] for row in entries(out)] == ["ok", "ok", "wrong", "unreadable"]
    assert "schema_version is 2" in entries(out)[-1]["problems"][0]


def test_check_before_anything_is_stored() -> None:
    code, out, _ = invoke("check")
    assert code == 0
    assert "there is none yet: run sonew-autotune run" in out
    assert not paths.store_path().exists()


def test_a_hostile_store_is_a_clear_line_for_every_command() -> None:
    path = paths.store_path()
    path.parent.mkdir(parents=True)
    evil = {"time": math.nan, "deep": [[[["x"]]]]}
    path.write_text(json.dumps({"schema_version": 1, "entries": [{**sound_entry().as_json(), "evidence": evil}, {"key": HOSTILE}]}))
    for command, expected in ((("show",), 2), (("check",), 1), (ASK, 0), (("export", "x.json"), 2)):
        code, out, err = invoke(*command)
        assert code == expected, (command, out, err)
        assert "evidence holds nan" in " ".join((out + err).split())
    path.write_text("[" * 100_000)
    for command, expected in ((("show",), 2), (("check",), 2), (ASK, 0), (("export", "x.json"), 2)):
        code, out, err = invoke(*command)
        assert (code, "nested in more than 32 levels" in out + err) == (expected, True), (command, out, err)


def test_a_run_is_refused_before_it_begins_where_the_store_is_of_another_version() -> None:
    path = paths.store_path()
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 2, "entries": []}')
    code, out, err = invoke("run", "--device", "cpu", "--size", "3000", "--band", "1", "--trials", "1")
    assert (code, out) == (2, "")
    assert "has schema_version 2, this version of sonew writes 1: nothing was changed. Use the version of sonew that wrote it" in err
    assert path.read_text() == '{"schema_version": 2, "entries": []}'


def test_keys_in_tests_are_what_they_claim() -> None:
    """`KEY` differs from this machine's in device, toolchain and hash, which other tests rely on."""
    here = entry_here().key
    assert KEY.device != here.device
    assert KEY.source_hash != here.source_hash
