"""What SECURITY.md and the threat model promise of the source and of what a run leaves on disk."""

from __future__ import annotations

import ast
import hashlib
import hmac
import re
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dpacc.errors import ConfigurationError
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret
from dpacc.recipe.models import load_adapter
from tests.recipes.conftest import material, recipe, train  # noqa: F401
from tests.recipes.training import Train
from tests.tiny_models import tiny_base

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("dpacc", "recipes", "accounting/src")
    for path in (ROOT / folder).rglob("*.py")
)
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLING_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load", "pd.read_pickle"}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def called(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    """No source imports a pickler, loads with one, runs a string or a shell, or trusts hub code."""
    text = path.read_text()
    tree = ast.parse(text)
    assert not imported(tree) & PICKLERS
    assert not called(tree) & (UNPICKLING_CALLS | {"eval", "exec", "os.system"})
    assert "yaml.load" not in called(tree) or re.search(r"\byaml\.SafeLoader\)", text)
    assert "trust_remote_code=True" not in text
    assert "shell=True" not in text


def test_the_check_sees_what_it_forbids() -> None:
    """The same walk finds a pickler and an unpickling call where there are some."""
    tree = ast.parse("import pickle\nfrom joblib import load\nx = torch.load('a')\neval('1')")
    assert imported(tree) & PICKLERS == {"pickle", "joblib"}
    assert called(tree) >= {"torch.load", "eval"}


def test_an_adapter_without_safetensors_is_refused(tmp_path: Path) -> None:
    """A folder that offers a pickled adapter is not opened."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigurationError, match="safetensors"):
        load_adapter(model=tiny_base("llama"), folder=tmp_path)


def test_what_a_run_leaves_is_its_owners_and_holds_no_secret(
    train: Train,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Folder 0700, ledger and checkpoints 0600; the run's key is in no file and on no terminal."""
    keys: list[bytes] = []
    keep = RunSecret.__init__

    def spy(self: RunSecret, key: bytes, **options: object) -> None:
        keys.append(key)
        keep(self, key, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(RunSecret, "__init__", spy)
    folder = train(checkpoint_every=2) / "tiny"
    assert keys
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    private = [p for p in files if p.name == "ledger.jsonl" or "checkpoints" in p.parts]
    assert len(private) > 1
    assert {oct(path.stat().st_mode & 0o777) for path in private} == {"0o600"}
    shown = "".join(capsys.readouterr())
    for key in keys:
        assert not [path for path in files if key in path.read_bytes()]
        assert not [path for path in files if key.hex().encode() in path.read_bytes()]
        assert key.hex() not in shown


def test_the_noise_has_a_known_answer() -> None:
    """HMAC-SHA-256 of the label keys AES-256-CTR, whose words become uniforms, then normals."""
    key = hashlib.sha256(b"dpacc fixed seed 11").digest()
    stream_key = hmac.new(key, b"dpacc/noise/5", "sha256").digest()
    cipher = Cipher(algorithms.AES256(stream_key), modes.CTR(bytes(16))).encryptor()
    words = [int.from_bytes(cipher.update(bytes(8)), "little") for _ in range(1000)]
    uniforms = [((word >> 11) + 0.5) / 2**53 for word in words]
    expected = []
    for first, second in zip(uniforms[::2], uniforms[1::2], strict=True):
        radius = np.sqrt(-2 * np.log(first))
        expected += [radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)]
    drawn = standard_normals(secret=RunSecret.from_fixed_seed(11), step=5, count=1000)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_the_elements_of_one_step_are_independent() -> None:
    """No lag up to 50 correlates, and neither do squares: 100 tests at 10⁻⁶ each.

    At 10⁶ draws a correlation of 0.006 would be seen in all but one of a thousand such tests.
    """
    drawn = standard_normals(secret=RunSecret.from_fixed_seed(3), step=0, count=1_000_000)
    bound = 4.9 / np.sqrt(len(drawn))
    for series in (drawn.astype(np.float64), drawn.astype(np.float64) ** 2 - 1):
        scale = float((series**2).mean())
        for lag in range(1, 51):
            found = float((series[:-lag] * series[lag:]).mean()) / scale
            assert abs(found) < bound


def test_the_threat_model_is_true_to_the_source() -> None:
    """Every file and test that it names exists."""
    page = (ROOT / "docs/threat_model.md").read_text() + (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`((?:dpacc|tests|docs|accounting)/[\w/.]+\.(?:py|md))`", page))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).is_file()} == set()
