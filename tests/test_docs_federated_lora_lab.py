"""The page for those who come from dp-federated-lora-lab: our program runs, theirs is answered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from tests.dpacc.federated.federations import texts, tiny_folder

PAGE = (Path(__file__).parents[1] / "docs/from_federated_lora_lab.md").read_text()
THEIRS, OURS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path)
    for seed, name in enumerate(("hospital_1", "hospital_2")):
        texts(tmp_path / f"{name}.jsonl", count=16, seed=seed)
    return tmp_path


def test_our_program_keeps_each_clients_budget(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rounds inside a secure sum, an accuracy, and each client's own ε, of at most 8."""
    names: dict[str, Any] = {}
    exec(compile(OURS, "from_federated_lora_lab.md", "exec"), names)
    history = names["history"]
    assert [r.survivors for r in history.rounds] == [("hospital_1", "hospital_2")] * 2
    assert all(7.9 < each <= 8.0 for each in history.epsilons().values())
    assert "0.5 {'hospital_1': " in capsys.readouterr().out


def test_their_program_is_answered_one_word_at_a_time(folder: Path) -> None:
    """With our imports it stops at each word that has another meaning here, and says which."""
    program = THEIRS.replace("dp_federated_lora", "dpacc.federated")
    steps = (
        (
            "DPLoRAClient needs model_name=",
            "client_id=name,",
            'client_id=name, model_name="model",',
        ),
        (r"dp_config\['noise_multiplier'\]=1.1", '"noise_multiplier": 1.1', '"epsilon": 8.0'),
        ("dp_config has no 'delta'", '"epsilon": 8.0, "max', '"epsilon": 8.0, "delta": 1e-3, "max'),
        ("no 'expected_batch_size'", '"secure_mode"', '"expected_batch_size": 8, "secure_mode"'),
        ("every client counts alike", '"secure_weighted"', '"ffa"'),
    )
    for why, theirs, ours in steps:
        with pytest.raises(ConfigurationError, match=why):
            exec(compile(program, "theirs", "exec"), {})
        assert theirs in program
        program = program.replace(theirs, ours)
    assert not list(folder.glob("federation/*/ledger.jsonl"))


def test_what_the_page_names_is_there() -> None:
    """Every name in its table can be imported."""
    import dpacc.federated

    named = re.findall(r"`(\w+)(?:\(|`)", PAGE.split("| dp-federated-lora-lab |")[1])
    offered = [name for name in named if name[0].isupper() and name != "PrivacyEngine"]
    assert len(offered) >= 8
    assert all(name in dpacc.federated.__all__ for name in offered)
