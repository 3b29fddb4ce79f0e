"""What a training run is told: one flat, frozen, documented object, read before anything heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpacc_accounting.pricing.small_delta import small_delta

from dpacc.errors import require_local
from dpacc.plan.settings import Clipping, Correlation, Drawing, Noise
from dpacc.recipe.consistency import require_consistent
from dpacc.recipe.settings import (
    Compile,
    Kernels,
    LoraMethod,
    Metric,
    OptimizerName,
    PerExampleGradients,
    Precision,
    PreferenceLoss,
    Quantization,
    Task,
    WireFormat,
    check_limits,
    read_settings,
    setting,
)

_USAGE = """\
Differentially private LoRA fine-tuning of a language model.
Settings come from --config FILE.yaml; each may be overridden here:"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Every choice of a run, checked at construction.

    >>> config = TrainingConfig(model="gpt2", train_data="notes.jsonl", epsilon=8.0,
    ...                         expected_batch_size=256, epochs=3)
    >>> round(config.delta_for(dataset_size=10_000) * 10_000, 3)
    0.398

    Raises:
        ConfigurationError: a value outside its limits, or two values that contradict each other.
    """

    # --- what and where
    model: str = setting("Folder of a causal language model, or its id on the hub.")
    train_data: str = setting(
        "Private examples: a .jsonl, .json, .csv, .tsv, .parquet or .txt file, packed as .gz or "
        "not, a folder of such files, or a dataset id on the hub."
    )
    name: str = setting("Name of this run's folder.", default="run")
    output_dir: str = setting("Folder that holds the folders of all runs.", default="runs")

    task: Task = setting(
        "causal-lm learns text; sequence-classification the class of a text; token-classification "
        "the class of each word; preference which of two answers to a prompt was chosen.",
        default="causal-lm",
    )

    # --- the promise
    epsilon: float = setting(
        "Budget: the whole run is (epsilon, delta)-private for adding or removing one example.",
        above=0,
    )
    delta: float | None = setting(
        "The other half of the budget, below 1/N for N training examples; null means N^-1.1, and "
        "at most 0.001, which publishes N through it.",
        default=None,
        above=0,
        below=1,
    )
    expected_batch_size: int = setting(
        "Examples a logical batch holds on average, or at most where they are allocated: each "
        "example joins each step with probability expected_batch_size / N (Poisson sampling), or "
        "is in one of ceil(N / expected_batch_size) steps an epoch.",
        at_least=1,
    )
    epochs: float | None = setting(
        "Expected passes over the data; steps = ceil(epochs * N / expected_batch_size), or as many "
        "of ceil(N / expected_batch_size) each where sampling is allocated. Give this or steps.",
        default=None,
        above=0,
    )
    steps: int | None = setting("Logical steps. Give this or epochs.", default=None, at_least=1)
    max_grad_norm: float = setting(
        "Clipping norm C: no example moves the sum of gradients by more.", default=1.0, above=0
    )
    clipping: Clipping = setting(
        "flat scales an example's gradient by min(1, C/norm); per-layer does so layer by layer; "
        "automatic always scales it to (almost) C, so that C needs no tuning; adaptive lets C "
        "follow the median norm, for a little of the budget.",
        default="flat",
    )
    noise: Noise = setting(
        "gaussian, or discrete_gaussian: whole numbers summed exactly and noise drawn exactly, "
        "against attacks on floating-point rounding. The same epsilon.",
        default="gaussian",
    )

    sampling: Drawing = setting(
        "poisson draws each example for each step by a coin of its own; allocated puts it in "
        "exactly one step of each epoch, in secret: 2 to 11% less noise at the same epsilon. A run "
        "that stops within an epoch goes on at the next one. examples draws and clips the examples "
        "of unit_field one by one, at most unit_cap of each unit, which is protected whole.",
        default="poisson",
    )
    correlation: Correlation = setting(
        "none draws each step's noise afresh; banded lets later steps take back a part of it, for "
        "less noise in the end at the same epsilon. Units are then drawn in turns.",
        default="none",
    )
    bands: int | None = setting(
        "How many steps' noise is correlated; each takes a vector as long as all adapters, in "
        "memory. null means the best number. Needs correlation banded.",
        default=None,
        at_least=2,
    )

    budget: str | None = setting(
        "File of the data's budget, which `dpacc budget init` makes: all runs that name it keep "
        "one total together, or are refused before they begin.",
        default=None,
    )

    # --- the data
    held_out_data: str | None = setting(
        "Examples to measure perplexity on, same formats. They are not protected by the guarantee.",
        default=None,
    )
    held_out_examples: int | None = setting(
        "How many held-out examples to measure on, chosen by seed; null means all.",
        default=1000,
        at_least=1,
    )
    allow_held_out_overlap: bool = setting(
        "Measure on private examples, or other ones of protected units, too; the ledger says so.",
        default=False,
    )
    data_subset: str | None = setting("Configuration of a hub dataset.", default=None)
    train_split: str = setting("Split of a hub dataset to train on.", default="train")
    held_out_split: str = setting("Split of a hub dataset to measure on.", default="validation")
    text_field: str = setting("Field that holds plain text.", default="text")
    prompt_field: str | None = setting(
        "Field that holds a prompt, which is read but not learned; needs completion_field. Of "
        "several names between commas the first must be there; what they hold is joined by blank "
        "lines, the completion too. Of a preference pair it is `prompt`, if not named.",
        default=None,
    )
    completion_field: str | None = setting(
        "Field that holds the completion to learn; needs prompt_field. Both may hold lists of chat "
        "messages, too: only what the assistant says in the completion is then learned.",
        default=None,
    )
    messages_field: str | None = setting(
        "Field that holds chat messages; the model's chat template formats them, with the tools "
        "that a field `tools` names, and only the assistant's turns of a weight other than 0 are "
        "learned.",
        default=None,
    )
    answers: tuple[str, ...] | None = setting(
        "All completions that there are, each one token. The right one is then learned among them "
        "instead of among all words, which noise harms less; perplexity, too, is among them, and "
        "text that is written freely may begin with other words. They are public. Needs "
        "completion_field and learn_end false.",
        default=None,
    )
    learn_end: bool = setting("Whether a text or completion teaches that it ends.", default=True)
    label_field: str = setting(
        "For classification, the field that holds a text's class, or the list of its words' "
        "classes: names of labels, or their places in it from 0.",
        default="label",
    )
    words_field: str = setting(
        "For token-classification, the field that holds the list of words.", default="words"
    )
    labels: tuple[str, ...] | None = setting(
        "For classification, the names of all classes. They are public: nothing is read off the "
        "private data.",
        default=None,
    )
    preference_loss: PreferenceLoss = setting(
        "For preference, whose fields `chosen` and `rejected` hold the answers, what is learned of "
        "a pair: dpo, ipo or kto (with 0 for its reference point) beside the frozen base; simpo or "
        "orpo without it. Each reads one pair and no other.",
        default="dpo",
    )
    beta: float | None = setting(
        "The beta of preference_loss; ipo's paper calls it tau, orpo's lambda. null means the "
        "usual: 0.1, and 2 for simpo.",
        default=None,
        above=0,
    )
    label_smoothing: float = setting(
        "For dpo, the share of pairs that are taken to be labelled the wrong way round.",
        default=0.0,
        at_least=0,
        below=0.5,
    )
    simpo_gamma: float = setting("For simpo, the margin that is aimed at.", default=1.0)
    unit_field: str | None = setting(
        "Field that says whose each example is, for protecting a whole person or document; null "
        "protects one example. N and expected_batch_size then count units.",
        default=None,
    )
    unit_cap: int | None = setting(
        "The most examples of one unit that count: drawn anew in each step where units are "
        "sampled, drawn once where sampling is examples; null counts all. Needs unit_field.",
        default=None,
        at_least=1,
    )
    max_length: int = setting(
        "Tokens kept of each example, from its beginning, which gives way where a prompt is so "
        "long that the completion would get less than half of them.",
        default=512,
        at_least=2,
    )

    # --- the model
    quantization: Quantization = setting(
        "Storage of the frozen base: none, nf4 (4 bits) or int8.", default="none"
    )
    dtype: Precision = setting(
        "Arithmetic of the frozen base; auto takes what the model was saved in, or float32 on a "
        "processor without 16-bit arithmetic. Adapters are always float32.",
        default="auto",
    )
    lora_method: LoraMethod = setting(
        "lora trains both factors; rslora too, scaled by lora_alpha / sqrt(lora_rank); ffa keeps A "
        "as it was drawn and trains B, which noise harms less at high ranks; whitened fixes B and "
        "trains A on inputs whose main directions, found on held_out_data, weigh alike; dylora "
        "trains the first rows and columns alone, as many as each step's public draw says, for one "
        "adapter that can be cut to any lower rank; subspace goes on within few directions that a "
        "first phase found, noise and all.",
        default="lora",
    )
    subspace_rank: int | None = setting(
        "Directions of lora_method subspace.", default=None, at_least=1
    )
    subspace_steps: float = setting(
        "Share of the steps that find them.", default=0.5, above=0, below=1
    )
    subspace_rate: float = setting(
        "How many times larger the learning rate is within them.", default=1.0, above=0
    )
    lora_rank: int = setting("Rank of the adapters.", default=8, at_least=1)
    lora_alpha: float = setting("Adapters are scaled by lora_alpha / lora_rank.", default=16.0)
    lora_dropout: float = setting(
        "Dropout before the adapters; private training rarely overfits.",
        default=0.0,
        at_least=0,
        below=1,
    )
    lora_target_modules: tuple[str, ...] = setting(
        "Layers that get adapters, by the last part of their names, or all-linear.",
        default=("all-linear",),
    )
    lora_top_layers: int | None = setting(
        "Adapt this many of the last transformer blocks only: no backward runs beneath them. null "
        "adapts all.",
        default=None,
        at_least=1,
    )
    cache_frozen_activations: bool = setting(
        "Compute what the layers beneath lora_top_layers make of each example once, and keep it in "
        "a nameless file until training ends: later epochs skip those layers.",
        default=False,
    )

    # --- the optimizer
    optimizer: OptimizerName = setting(
        "adamw, or sgd with momentum 0.9, which noise harms less and whose learning rates are "
        "about a hundred times larger.",
        default="adamw",
    )
    learning_rate: float | None = setting(
        "Peak learning rate; null is what trained parameters, steps and base bear under noise, for "
        "adamw, and sgd needs one. Correlation raises adamw's as much as one step's noise.",
        default=None,
        above=0,
    )
    warmup_steps: int = setting(
        "Steps of linear warm-up; a linear decay to zero follows, unless adapters are averaged.",
        default=0,
        at_least=0,
    )
    average_iterates: float | None = setting(
        "Share of the steps, the last ones, whose adapters are averaged in the end, which costs no "
        "privacy and cancels noise; 0 keeps the last adapter. null is 0.5, and 0 under DeepSpeed, "
        "which cuts the optimizer's state.",
        default=None,
        at_least=0,
        at_most=1,
    )
    weight_decay: float = setting("The optimizer's weight decay.", default=0.0, at_least=0)

    # --- the machine
    micro_batch_tokens: int = setting(
        "Padded tokens one forward may hold on one device: speed and memory, never the result.",
        default=2048,
        at_least=1,
    )
    per_example_gradients: PerExampleGradients = setting(
        "materialize keeps them through one backward; ghost goes backward twice and keeps none; "
        "auto goes by the free memory. It never changes the result.",
        default="auto",
    )
    kernels: Kernels = setting(
        "torch, or triton: fewer passes over a GPU's memory, not yet seen on one.", default="torch"
    )
    wire: WireFormat = setting(
        "fp32, or bf16: between ranks, noised sums cross in 16 bits; sums without noise never do.",
        default="fp32",
    )
    compile: Compile = setting("torch.compile each adapted block, or all as one.", default="none")
    gradient_checkpointing: bool = setting("Recompute activations: less memory.", default=False)
    offload_activations: bool = setting("Recompute from inputs held by the host.", default=False)
    evaluate_every: int | None = setting(
        "Steps between held-out measurements; null measures only before and after.",
        default=None,
        at_least=1,
    )
    trackers: tuple[str, ...] | None = setting(
        "Where to log epsilon, learning rate and held-out quality: tensorboard, wandb, trackio.",
        default=None,
    )
    log_non_private_metrics: bool = setting(
        "Also log the training loss, which nothing protects; the ledger and the statement say so.",
        default=False,
    )
    checkpoint_every: int | None = setting(
        "Steps between checkpoints, from which --resume goes on; null keeps none.",
        default=None,
        at_least=1,
    )
    resume: str | None = setting(
        "Folder of a run to go on with, given the settings it was started with; auto is the last "
        "run of the same name, or a new one.",
        default=None,
    )
    push_to_hub: str | None = setting(
        "Repository on the hub, as owner/name, for the adapter with its statement and ledger; made "
        "private if it is new. null uploads nothing.",
        default=None,
    )
    seed: int = setting(
        "Seeds public randomness only: the adapters' initial values and the choice of held-out "
        "examples. Sampling and noise take secret randomness that no setting can fix.",
        default=0,
        at_least=0,
        below=2**32,
    )

    def __post_init__(self) -> None:
        check_limits(settings=self)
        require_consistent(config=self)
        require_local(self.output_dir, name="output_dir")

    def delta_for(self, *, dataset_size: int) -> float:
        """δ of a run on `dataset_size` examples: the one that was set, or N^-1.1, at most 0.001."""
        return small_delta(dataset_size=dataset_size) if self.delta is None else self.delta

    @property
    def unit(self) -> str:
        """What the guarantee is for: one example, one pair of answers, or all of one owner."""
        if self.unit_field is not None:
            return self.unit_field
        return "preference pair" if self.task == "preference" else "example"

    @property
    def pair_prompt(self) -> str:
        """The field that holds the prompt of a preference pair."""
        return self.prompt_field or "prompt"

    @property
    def dynamic_rank(self) -> int | None:
        """The public seed of each step's rank, where it changes from step to step."""
        return self.seed if self.lora_method == "dylora" else None

    @property
    def kept_of_each(self) -> int | None:
        """The most examples of a unit that are drawn from, where examples are drawn."""
        return self.unit_cap if self.sampling == "examples" else None

    @property
    def metric(self) -> Metric:
        """What held-out data measures: how well text is foreseen, or classes are found."""
        return "perplexity" if self.task == "causal-lm" else "accuracy"


def load_config(*, arguments: Sequence[str]) -> TrainingConfig:
    """Read `--config FILE.yaml` and the overrides that follow it.

    Raises:
        ConfigurationError: one line that shows the value and the remedy.
        SystemExit: with code 0 after `--help`.
    """
    return read_settings(kind=TrainingConfig, arguments=arguments, usage=_USAGE)
