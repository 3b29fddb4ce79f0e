"""What a federation publishes: the model that was measured, and a card that names nobody."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.run_results import write_results
from dpacc.federated.settings import LoraSettings
from tests.dpacc.federated.federations import (
    DELTA,
    client,
    deployed_in_process,
    node_settings,
    server,
    trusting,
)

APP = Path(__file__).parents[4] / "recipes/federation/client_app.py"
BOTH = LoraSettings(rank=2, alpha=8.0, method="lora", target_modules=("q_proj", "v_proj"))
NOISE = ClientPrivacy(noise_multiplier=1.0, clipping_norm=0.5, delta=1e-6)
WORDS = torch.arange(1, 10)[None]


def logits(model: Any) -> torch.Tensor:
    """Of a few words."""
    with torch.no_grad():
        return model.eval()(input_ids=WORDS).logits


def base(folder: Path) -> Any:
    """The plain model, as whoever downloads the adapter has it."""
    return AutoModelForCausalLM.from_pretrained(folder / "model")


@pytest.mark.parametrize(
    ("rule", "method"), [("fedex", "rslora"), ("stacking", "lora"), ("fedask", "lora")]
)
def test_the_saved_adapter_is_the_model_that_was_measured(
    folder: Path, rule: Any, method: Any
) -> None:
    """Loaded onto the plain base, its files answer as the server's own model does."""
    both = LoraSettings(rank=2, alpha=8.0, method=method, target_modules=BOTH.target_modules)
    clients = [client(folder, n, lora_config=both, dp={"learning_rate": 0.05}) for n in (1, 2)]
    federation = server(folder, lora_config=both)
    federation.train(clients=clients, aggregation=rule)
    measured = logits(federation.model)
    write_results(federation, folder=folder / "server")
    published = PeftModel.from_pretrained(base(folder), folder / "server/adapter")
    assert float((logits(published) - measured).abs().max()) < 2e-5
    assert float((logits(base(folder)) - measured).abs().max()) > 0.01
    assert published.peft_config["default"].r <= 2 * 2 * 2 + 2
    with pytest.raises(RuntimeError, match="publish"):
        federation.model.save_pretrained(folder / "other")
    again = server(folder, lora_config=both)
    again.train(clients=clients, aggregation=rule)
    again.publish(folder=folder / "again")
    reloaded = PeftModel.from_pretrained(base(folder), folder / "again")
    assert torch.equal(logits(reloaded), logits(published))


def shipped_app() -> Any:
    """The client app that nodes are given."""
    spec = importlib.util.spec_from_file_location("shipped_client_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def test_the_shipped_app_answers_both_questions_of_a_round(folder: Path) -> None:
    """Under fedask a node is asked twice; whoever answered but once gave its budget for nothing."""
    run = {
        "model": str(folder / "model"),
        "num-clients": 2,
        "rounds": 1,
        "epsilon": 50.0,
        "delta": DELTA,
        "lora-rank": 2,
        "lora-alpha": 8.0,
        "lora-method": "lora",
        "lora-target-modules": "q_proj,v_proj",
    }
    app = shipped_app()

    class Nodes(LocalGrid):
        def _ask(self, node_id: int, message: Message) -> Message:
            own = node_settings(folder, f"site-{node_id}", seed=node_id)
            context = Context(
                run_id=1, node_id=node_id, node_config=own, state=RecordDict(), run_config=run
            )
            return app(message, context)

    federation = server(folder, lora_config=BOTH, rounds=1)
    whole = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    federation.app(aggregation="fedask")(Nodes(dict.fromkeys((1, 2), app)), whole)
    (report,) = federation.history.rounds
    assert report.survivors == ("site-1", "site-2")
    assert report.filtered == {}


def test_the_card_tells_each_clients_price_in_both_views_and_no_name(folder: Path) -> None:
    """ε, δ, unit, adjacency and method of every client, by numbers in place of names."""
    clients = [client(folder, n, client_id=f"hospital-{n}", fixed_seed=None) for n in (1, 2)]
    federation = server(folder)
    federation.train(clients=clients)
    federation.publish(folder=folder / "adapter")
    card = (folder / "adapter/README.md").read_text()
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("| client ")]
    told = [[cell.strip() for cell in row] for row in rows]
    spent = sorted(federation.history.epsilons().values())
    assert [row[0] for row in told] == ["client 1", "client 2"]
    for row, epsilon in zip(told, spent, strict=True):
        assert float(row[2]) >= epsilon > 0.99 * float(row[2]) - 0.01
        assert float(row[3]) == float(row[2])
        assert [row[1], *row[4:]] == ["example", "0.001", "add-or-remove", "PLD"]
    assert "hospital" not in card
    assert "[More Information Needed]" not in card
    assert "Poisson" in card


def test_a_voided_price_is_no_number_on_the_card(folder: Path) -> None:
    """Noise from a fixed seed promises nothing, and the card says so of that client alone."""
    federation = server(folder)
    federation.train(clients=[client(folder, 1), client(folder, 2, fixed_seed=None)])
    federation.publish(folder=folder / "adapter")
    card = (folder / "adapter/README.md").read_text()
    assert card.count("NOT private") == 2  # both views of one client
    assert "fixed-seed" in card or "seed" in card
    assert math.isinf(max(federation.history.epsilons().values()))


def test_a_client_level_card_says_nothing_of_who_took_part(folder: Path) -> None:
    """One row for any client; none holds against the server that adds the noise."""
    federation = server(folder, privacy_budget=None, client_privacy=NOISE)
    federation.train(clients=[trusting(folder, n) for n in (1, 2)])
    federation.publish(folder=folder / "adapter")
    card = (folder / "adapter/README.md").read_text()
    assert "| any client | client | none: the server is trusted |" in card
    assert "site-" not in card
    assert "| client 1 |" not in card


def test_a_run_that_brought_nothing_is_no_success(folder: Path) -> None:
    """Files are written, and then an error names what became of the clients."""
    federation: FederatedServer = server(folder, num_clients=1, rounds=1)
    deployed_in_process(federation.app(), [client(folder, 1, dp={"epsilon": 60.0})], federation)
    with pytest.raises(ConfigurationError, match=r"no client's update was used.*epsilon=60"):
        write_results(federation, folder=folder / "server")
    assert "No client's update is in it" in (folder / "server/adapter/README.md").read_text()
    assert (folder / "server/history.json").exists()
