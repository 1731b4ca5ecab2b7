from __future__ import annotations

import math
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch

from sonew_perf.errors import DataError
from sonew_perf.training.asked import Asked, make_run
from sonew_perf.training.loop import train
from sonew_perf.training.settings import Settings
from sonew_perf.training.tasks import text, text_torch
from sonew_perf.training.tasks.data import Data, batches

SENTENCE = "The quick brown fox jumps over the lazy dog; a step is a step. "
CPU = torch.device("cpu")


@pytest.fixture
def data() -> Data:
    return text.data_of(SENTENCE * 100, "sentences")


def decoded(data: Data, values: np.ndarray) -> str:
    return "".join(data.symbols[number] for number in values)


def test_without_a_path_it_is_pythons_documentation_with_its_last_tenth_held_out() -> None:
    data = text.load(None)
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    assert data.held_out is not None
    assert decoded(data, data.values) + decoded(data, data.held_out) == whole
    assert len(data.held_out) == round(len(whole) / 10)
    assert data.examples == (len(data.values) - 1) // 64
    assert data.values.dtype == data.held_out.dtype == np.uint8
    assert data.describe() == {"name": data.name, "examples": data.examples, "sha256": data.sha256}
    assert data.name.startswith("documentation of Python 3.")


def test_a_whole_run_on_it_is_about_a_thousand_steps() -> None:
    run = make_run(Asked(task="text"), text.load(None), "adamw", Settings(), 0)
    assert 900 <= run.steps == run.schedule_steps <= 1100


def test_a_python_without_documentation_is_told_to_name_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"this Python comes without its documentation.*with --data"):
        text.load(None)


def test_a_folder_is_its_texts_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    parts = {
        "b.TXT": "b" * 700,
        "a.md": "\N{BYTE ORDER MARK}" + "a" * 10,
        "inner/c.rst": "é" * 10,
        "empty.txt": "",
        "code.py": "never read",
    }
    for name, content in parts.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    folder = text.load(tmp_path)
    assert folder.held_out is not None
    assert decoded(folder, np.concatenate([folder.values, folder.held_out])) == "a" * 10 + "\n\n" + "b" * 700 + "\n\n" + "é" * 10

    one = tmp_path / "one.log"
    one.write_text("a" * 10 + "\n\n" + "b" * 700 + "\n\n" + "é" * 10, encoding="utf-8")
    assert text.load(one).sha256 == folder.sha256
    one.write_text("a" * 11 + "\n\n" + "b" * 700 + "\n\n" + "é" * 10, encoding="utf-8")
    assert text.load(one).sha256 != folder.sha256


def test_beyond_256_symbols_the_rarest_become_one() -> None:
    common = "".join(map(chr, range(0x100, 0x100 + 300)))
    values, symbols = text.encode(common[:256])
    assert symbols == common[:256]
    np.testing.assert_array_equal(values, np.arange(256))

    twice = common[:50] + common[100:] + common  # 50 to 99 once, the others twice: of these 250 and of those the first five are kept
    values, symbols = text.encode(twice)
    assert symbols == common[:55] + common[100:] + "\N{REPLACEMENT CHARACTER}"
    expected = "".join("\N{REPLACEMENT CHARACTER}" if character in common[55:100] else character for character in twice)
    assert "".join(symbols[number] for number in values) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"has 0 characters, expected at least 650"),
        (b"x" * 649, r"has 649 characters, expected at least 650"),
        (b"x" * 700 + b"\xff", r"is no text in UTF-8: byte 0xff at 700"),
        (b"x" * 700 + b"\0", r"is no text: it has a null character at 700"),
    ],
)
def test_what_is_no_text_or_too_short_is_named_with_the_fix(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    for asked in (path, tmp_path):
        with pytest.raises(DataError, match=said) as caught:
            text.load(asked)
        assert "with --data; without it it is the documentation" in str(caught.value)


def test_a_name_is_one_that_a_record_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "<a>\n\udcff.txt"
    path.write_text("ab" * 400)
    assert text.load(path).name == "?a???.txt"
    monkeypatch.chdir(tmp_path)
    assert text.load(Path("..") / tmp_path.name).name == text.load(Path()).name == tmp_path.name


def test_a_missing_path_an_unsuitable_folder_and_a_device_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file or directory"):
        text.load(tmp_path / "nowhere")
    (tmp_path / "code.py").write_text("")
    with pytest.raises(DataError, match=r"holds no file that ends with \.txt, \.md, \.rst; it has \['code\.py'\]"):
        text.load(tmp_path)
    with pytest.raises(DataError, match=r"/dev/null is not read: it is no regular file"):
        text.load(Path("/dev/null"))


def test_files_that_are_too_large_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "LARGEST", 1000)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x" * 700)
    assert text.load(tmp_path / "a.txt").examples == 9
    with pytest.raises(DataError, match=r"b\.txt is not read: the files have more than 1000 bytes together"):
        text.load(tmp_path)


@pytest.mark.parametrize(("characters", "examples"), [(711, 9), (712, 10)])  # 71 are held out: the tenth window needs the 641st character
def test_an_example_has_a_character_after_it(characters: int, examples: int) -> None:
    data = text.data_of(("ab" * 356)[:characters], "letters")
    assert data.examples == examples
    assert text_torch.pick(torch.from_numpy(data.values), torch.arange(examples)).shape == (examples, 65)


def test_an_epochs_windows_are_the_text_each_with_the_character_after_it(data: Data) -> None:
    chosen = np.concatenate(list(batches(data.examples, 1, data.examples, 0)))
    windows = text_torch.pick(torch.from_numpy(data.values), torch.from_numpy(chosen)).numpy()
    assert windows.shape == (data.examples, 65)
    in_order = windows[np.argsort(chosen)]
    np.testing.assert_array_equal(in_order[:, :-1].ravel(), data.values[: 64 * data.examples])
    np.testing.assert_array_equal(in_order[:, 1:].ravel(), data.values[1 : 64 * data.examples + 1])


def formula(arrays: dict[str, np.ndarray], characters: np.ndarray) -> np.ndarray:
    """GPT-2's forward pass in float64: characters (batch, length) to logits."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"])

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"])

    length = characters.shape[1]
    x = arrays["symbol.weight"][characters] + arrays["position.weight"][:length]
    for block in ("blocks.0", "blocks.1"):
        mixed = linear(norm(x, f"{block}.attention_norm"), f"{block}.attention")
        heads = []
        for head in range(4):
            query, key, value = (mixed[..., 128 * part + 32 * head :][..., :32] for part in range(3))
            scores = np.where(np.tri(length, dtype=bool), query @ key.swapaxes(1, 2) / math.sqrt(32), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ value)
        x = x + linear(np.concatenate(heads, -1), f"{block}.attention_out")
        h = linear(norm(x, f"{block}.forward_norm"), f"{block}.forward_in")
        x = x + linear(h / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))), f"{block}.forward_out")
    logits: np.ndarray = norm(x, "norm") @ arrays["output.weight"].T
    return logits


def test_forward_and_loss_are_the_formulas_in_float64(data: Data) -> None:
    model = text_torch.build(1, data)
    with torch.no_grad():
        for param in model.parameters():  # away from the first weights, whose attention is nearly uniform
            param.add_(0.1 * torch.randn(param.shape, generator=torch.Generator().manual_seed(param.numel())))
    arrays = {name: param.detach().numpy().astype(np.float64) for name, param in model.named_parameters()}
    windows = text_torch.pick(torch.from_numpy(data.values), torch.tensor([0, 3, 7]))
    logits = formula(arrays, windows.numpy()[:, :-1])
    likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(likely, windows.numpy()[:, 1:, None], -1).mean()
    with torch.no_grad():
        np.testing.assert_allclose(model(windows[:, :-1]).numpy(), logits, atol=2e-4)
        assert math.isclose(text_torch.loss(model, windows).item(), expected, rel_tol=1e-5)


def test_weights_are_gpt2s_and_follow_the_seed(data: Data) -> None:
    model, again, other = (dict(text_torch.build(seed, data).named_parameters()) for seed in (3, 3, 4))
    for name, param in model.items():
        assert torch.equal(param, again[name])
        if param.ndim == 2:
            spread = 0.01 if name.endswith("_out.weight") else 0.02  # two parts in each of two layers: 0.02 / sqrt(4)
            assert abs(param.std().item() / spread - 1) < 4 / math.sqrt(2 * param.numel())
            assert not torch.equal(param, other[name])
        else:
            assert (param == (1 if name.endswith("norm.weight") else 0)).all()
    assert sum(param.ndim == 2 for param in model.values()) == 2 + 2 * 4 + 1


def test_the_first_loss_is_that_of_a_guess_and_bfloat16_agrees_in_float32(data: Data) -> None:
    model = text_torch.build(0, data)
    windows = text_torch.pick(torch.from_numpy(data.values), torch.arange(4))
    single = text_torch.loss(model, windows)
    half = text_torch.loss(model.to(torch.bfloat16), windows)
    half.backward()
    assert half.dtype == torch.float32
    assert math.isclose(single.item(), math.log(len(data.symbols)), rel_tol=0.02)
    assert math.isclose(half.item(), single.item(), rel_tol=0.005)
    assert all(param.grad is not None and param.grad.dtype == torch.bfloat16 for param in model.parameters())


def test_the_result_is_the_mean_over_every_window_of_the_held_out_text(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_torch.build(0, data)
    held_out = torch.from_numpy(data.held_out)
    monkeypatch.setattr(text_torch, "EVALUATED", 4)
    assert len(held_out) == 630
    with torch.no_grad():  # nine windows: two parts of four and one of one
        each = [text_torch.loss(model, held_out[64 * n : 64 * n + 65].long()[None]).item() for n in range(9)]
    assert math.isclose(text_torch.evaluate(model, torch.empty(0), held_out), sum(each) / 9, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("method", "precision", "settings"),
    [
        ("adamw", "fp32", Settings(lr=3e-3)),
        ("sonew", "fp32", Settings(lr=3e-3, layers="no-embeddings")),
        ("sonew", "bf16", Settings(lr=3e-3)),
    ],
)
def test_training_learns_the_sentence(data: Data, method: str, precision: str, settings: Settings) -> None:
    run = make_run(Asked(task="text", steps=16, batch=4, precision=precision, lr_rule="constant"), data, method, settings, 0)
    entry = train(run, data, CPU)
    assert entry["losses"][0] < math.log(len(data.symbols)) + 0.1
    assert entry["loss"] < 0.85 * entry["losses"][0]
    assert len(entry["losses"]) == math.ceil(16 / entry["losses_every"])
