"""Texts and networks for them, with stand-ins for the libraries transformers and tokenizers."""

import copy
import json
import shutil
import sys
import tomllib
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest
import tomlkit
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from safetensors.torch import load_file
from torch import nn

from vicinal import MixUp
from vicinal import load as vicinal_load
from vicinal.data import load
from vicinal.data.texts.load_texts import prepare_texts
from vicinal.errors import UserError
from vicinal.mixing import MixedInside
from vicinal.models import build, default_layers, freeze_backbone, head_names, network_config
from vicinal.training.recipe import read_recipe

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film", "a", "the", "very"]


class Tokenizer:
    """One token for each word, between [CLS] and [SEP]."""

    def __init__(self, words):
        self.words, self.length = words, None

    @staticmethod
    def from_str(text):
        return Tokenizer(json.loads(text))

    def to_str(self):
        return json.dumps(self.words)

    def no_truncation(self):
        self.length = None

    def no_padding(self):
        pass

    def enable_truncation(self, length):
        self.length = length

    def num_special_tokens_to_add(self, is_pair):
        return 3 if is_pair else 2

    def encode_batch(self, texts):
        found = []
        for text in texts:
            known = [self.words.index(w) if w in self.words else 3 for w in text.split()]
            inner = known[: self.length - 2]
            found.append(SimpleNamespace(ids=[1, *inner, 2], overflowing=known[len(inner) :]))
        return found


class Config(SimpleNamespace):
    def to_dict(self):
        return vars(self) | {"id2label": {0: "a"}, "auto_map": {"AutoModel": "evil.Net"}}


class Body(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.size)
        self.layer = nn.ModuleList(nn.Linear(config.size, config.size) for _ in range(3))


class Classifier(nn.Module):
    """Averages the vectors of tokens, before and after its layers."""

    def __init__(self, config):
        super().__init__()
        self.config, self.body = config, Body(config)
        self.classifier = nn.Linear(config.size, config.num_labels)

    @property
    def base_model(self):
        return self.body

    def get_input_embeddings(self):
        return self.body.words

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        x = self.body.words(input_ids) if inputs_embeds is None else inputs_embeds
        for layer in self.body.layer:
            x = x + torch.tanh(layer(x))
        if self.config.pooling == "last":  # as decoders do, which look for padding in input_ids
            last = attention_mask.sum(1) - 1 if inputs_embeds is None else -1
            return SimpleNamespace(logits=self.classifier(x[torch.arange(len(x)), last]))
        shares = attention_mask / attention_mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.classifier((x * shares[..., None]).sum(1)))


@pytest.fixture
def library(monkeypatch):
    """Replace transformers and tokenizers by modules with the functions that vicinal calls."""

    def config(where, **settings):
        file = f"{where}/config.json"
        with open(file) as opened:  # raises OSError
            return Config(**(json.load(opened) | settings))

    def from_pretrained(where, *, output_loading_info, ignore_mismatched_sizes, **settings):
        network = Classifier(config(where, **settings))
        state = torch.load(f"{where}/body.pt")
        network.body.load_state_dict(state)
        missing = {"classifier.weight", "classifier.bias"}
        return network, {"missing_keys": missing, "mismatched_keys": set()}

    def tokenizer(where):
        with open(f"{where}/tokenizer.json") as opened:
            return SimpleNamespace(
                backend_tokenizer=Tokenizer.from_str(opened.read()), pad_token_id=0
            )

    module, tokens = ModuleType("transformers"), ModuleType("tokenizers")
    module.AutoConfig = SimpleNamespace(
        from_pretrained=config, for_model=lambda model_type, **values: Config(**values)
    )
    module.AutoModelForSequenceClassification = SimpleNamespace(
        from_pretrained=from_pretrained, from_config=Classifier
    )
    module.AutoTokenizer = SimpleNamespace(from_pretrained=tokenizer)
    module.logging = SimpleNamespace(
        get_verbosity=lambda: 30,
        set_verbosity=lambda level: None,
        set_verbosity_error=lambda: None,
        disable_progress_bar=lambda: None,
        enable_progress_bar=lambda: None,
    )
    tokens.Tokenizer = Tokenizer
    monkeypatch.setitem(sys.modules, "transformers", module)
    monkeypatch.setitem(sys.modules, "tokenizers", tokens)
    version = SimpleNamespace(version=lambda name: "5.0")
    monkeypatch.setattr("vicinal.training.origin.metadata", version)
    return module


@pytest.fixture
def folder(tmp_path):
    """Write a pretrained network with its tokenizer, and return its folder."""
    found = tmp_path / "tiny"
    found.mkdir()
    write_config(found)
    torch.manual_seed(27)
    config = Config(vocab_size=len(WORDS), size=8, num_labels=2, pooling="mean")
    torch.save(Body(config).state_dict(), found / "body.pt")
    (found / "tokenizer.json").write_text(json.dumps(WORDS))
    return found


def write_config(folder, **changes):
    values = {"vocab_size": len(WORDS), "size": 8, "pooling": "mean", "pad_token_id": 0}
    values |= {"model_type": "tiny"} | changes
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture
def films(tmp_path):
    """Write a table of texts whose class follows from their words."""
    rows = [
        ("a very good film", "yes"),
        ("good film", "yes"),
        ("the bad film", "no"),
        ("bad", "no"),
    ]
    path = tmp_path / "films.csv"
    lines = [f"{k},{text},{label}" for k, (text, label) in enumerate(rows * 10)]
    path.write_text("\n".join(["number,review,liked", *lines, ""]))
    return path


def source(films, folder, more=""):
    return f"text:{films}?text=review&label=liked&tokenizer={folder}{more}"


@pytest.mark.usefixtures("library")
def test_texts_become_tokens_of_the_tokenizer_filled_up_with_padding(films, folder):
    data = load(source(films, folder), test_fraction=0.25)
    assert data.classes == ("no", "yes")
    assert (len(data.train), len(data.test)) == (30, 10)
    assert data.train.inputs.dtype == torch.int64
    found = {
        (*x.tolist(), data.classes[y])
        for x, y in zip(data.train.inputs, data.train.targets, strict=True)
    }
    assert found == {
        (1, 7, 9, 4, 6, 2, "yes"),
        (1, 4, 6, 2, 0, 0, "yes"),
        (1, 8, 5, 6, 2, 0, "no"),
        (1, 5, 2, 0, 0, 0, "no"),
    }
    assert any("40 texts have 4.5 tokens on average; inputs have 6" in n.text for n in data.notes)
    cut = load(source(films, folder, "&length=4"))
    assert cut.train.inputs.shape[1] == 4
    assert any("20 longer texts were cut" in note.text for note in cut.notes)
    assert load(source(films, folder, "&length=9")).train.inputs.shape[1] == 9


@pytest.mark.usefixtures("library")
def test_the_preparation_makes_the_same_tokens_without_the_folder(films, folder, tmp_path):
    data = load(source(films, folder))
    shutil.rmtree(folder)
    again = load(source(films, folder), preparation=data.preparation)
    assert torch.equal(again.test.inputs, data.test.inputs)
    assert again.preparation == data.preparation
    other = tmp_path / "other.csv"
    other.write_text("liked,review\nyes,good unheard good good good good good good\nno,bad\n")
    moved = load(f"text:{other}", preparation=json.loads(json.dumps(data.preparation)))
    assert len(moved.train) == 0
    assert moved.test.inputs.tolist() == [[1, 4, 3, 4, 4, 2], [1, 5, 2, 0, 0, 0]]
    assert moved.test.targets.tolist() == [1, 0]
    assert prepare_texts(["bad"], data.preparation).tolist() == [[1, 5, 2, 0, 0, 0]]
    with pytest.raises(UserError, match="expected length=6, as in training"):
        load(f"text:{other}?length=7", preparation=data.preparation)
    with pytest.raises(UserError, match="expected texts as in training, got rows of a table"):
        load(f"table:{other}?label=liked", preparation=data.preparation)


@pytest.mark.usefixtures("library")
def test_a_test_file_is_the_test_split(films, folder, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("review,liked,number\ngood,yes,1\nnull,no,2\n")
    data = load(source(films, folder, f"&test={other}"))
    assert (len(data.train), data.test.targets.tolist()) == (40, [1, 0])
    assert data.fixed_test


@pytest.mark.usefixtures("library")
def test_rows_without_a_text_are_errors_or_skipped(films, folder):
    films.write_text(films.read_text() + "41,,yes\n")
    with pytest.raises(UserError, match=r"row 42: the text 'review' is missing"):
        load(source(films, folder))
    data = load(source(films, folder), skip_bad=True)
    assert len(data.train) + len(data.test) == 40
    assert len(data.train.skipped) == 1


@pytest.mark.usefixtures("library")
def test_options_of_texts_that_are_missing_or_wrong_are_errors(films, folder):
    for spec, words in (
        (f"text:{films}?label=liked", "needs the option text=COLUMN.*number, review, liked"),
        (f"text:{films}?text=review", "needs the option label=COLUMN"),
        (f"text:{films}?text=review&label=liked", "needs the option tokenizer=PATH_OR_NAME"),
        (source(films, "nowhere"), "tokenizer=nowhere is not available.*hf download nowhere"),
        (source(films, folder, "&length=2"), "expected more than the 2 special tokens"),
        (source(films, folder).replace("review", "reviews"), "Did you mean 'review'"),
    ):
        with pytest.raises(UserError, match=words):
            load(spec)
    with pytest.raises(UserError, match="as tokens, over the limit of 36,000"):
        load(source(films, folder), max_bytes=36_000)


@pytest.mark.parametrize("name", ["transformers", "tokenizers"])
def test_a_missing_library_of_texts_is_an_error_with_the_pip_command(
    films, folder, library, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"requires the library {name}.*pip install {name}"):
        load(source(films, folder))


def network(folder, **more):
    return build(f"hf:{folder}", shape=(6,), classes=2, **more).eval()


X = torch.tensor([[1, 4, 6, 2, 0, 0], [1, 7, 9, 4, 6, 2]])


@pytest.mark.usefixtures("library")
def test_logits_are_those_of_the_library_with_a_mask_of_the_padding(folder):
    log = []
    model = network(folder, log=log.append)
    alone = model.model(input_ids=X[:1, :4], attention_mask=torch.ones(1, 4)).logits
    torch.testing.assert_close(model(X)[:1], alone)
    assert log == [f"initial weights: those of {folder}; its head starts from random weights"]
    with pytest.raises(TypeError, match="expected int64 tokens"):
        model(X.float())


@pytest.mark.usefixtures("library")
def test_a_blend_of_embeddings_attends_to_the_tokens_of_both_parents(folder):
    model = network(folder)
    mixed = MixedInside(model, MixUp(1.0), at=default_layers(f"hf:{folder}", text=True))
    plan = MixUp(1.0).draw(2, generator=torch.Generator().manual_seed(3))
    plan = type(plan)(lam=torch.tensor([0.75, 1.0]), partner=torch.tensor([1, 0]))
    got = mixed(X, plan, at="embedding")
    vectors = model.tokens(X) * (X != 0)[..., None]
    blend = 0.75 * vectors[0] + 0.25 * vectors[1]
    expected = model.model(inputs_embeds=blend[None], attention_mask=torch.ones(1, 6)).logits
    torch.testing.assert_close(got[:1], expected)
    # A text that keeps all of itself also keeps its own mask.
    plan = type(plan)(lam=torch.tensor([1.0, 1.0]), partner=torch.tensor([1, 0]))
    torch.testing.assert_close(mixed(X, plan, at="embedding"), model(X))


@pytest.mark.usefixtures("library")
def test_encoder_layers_are_mixed_once_also_in_a_copy(folder):
    model = copy.deepcopy(network(folder))
    mixed = MixedInside(model, MixUp(1.0), at=["layers.?"])
    assert mixed.layers == ["layers.0", "layers.1", "layers.2"]
    plan = MixUp(1.0).draw(2)
    plan = type(plan)(lam=torch.tensor([0.0, 1.0]), partner=torch.tensor([1, 0]))
    got = mixed(X[[1, 1]], plan, at="layers.1")
    torch.testing.assert_close(got, model(X[[1, 1]]))
    assert not torch.equal(mixed(X, plan, at="layers.1")[0], model(X)[0])


@pytest.mark.usefixtures("library")
def test_the_head_is_what_lies_outside_of_the_pretrained_body(folder):
    model = network(folder)
    assert head_names(model) == {"model.classifier.weight", "model.classifier.bias"}
    freeze_backbone(model)
    assert sum(p.requires_grad for p in model.parameters()) == 2


@pytest.mark.usefixtures("library")
def test_a_network_is_rebuilt_from_its_configuration_without_code_of_others(folder):
    model = network(folder)
    config = network_config(model)
    assert config["model_type"] == "tiny"
    assert "auto_map" not in config
    assert json.loads(json.dumps(config)) == config
    shutil.rmtree(folder)
    again = network(folder, initial_weights=False, config=config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), model(X))
    with pytest.raises(UserError, match=r"weights are not available \(FileNotFoundError"):
        network(folder)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "last"}, "vectors of tokens and on their mask alone.*Choose an encoder"),
        ({"pad_token_id": None}, "expected a network with a padding token"),
    ],
)
def test_networks_that_cannot_be_mixed_correctly_are_refused(folder, changes, words):
    write_config(folder, **changes)
    with pytest.raises(UserError, match=words):
        network(folder)


@pytest.fixture
def text_recipe(recipe_text, films, folder, tmp_path):
    """Return a function that writes a recipe that fine-tunes a network for texts."""

    def write(at=("embedding", "layers.1"), **changes):
        settings = tomllib.loads(recipe_text({"seeds": 1, "training.epochs": 3}))
        settings["data"] = {"source": source(films, folder), "test_fraction": 0.25}
        settings["model"]["name"] = changes.pop("name", f"hf:{folder}")
        settings["training"] |= {"batch_size": 10, "head_lr_factor": 3.0}
        mixup = {"title": "mixup", "policy": "mixup", "alpha": 0.4}
        mixup |= {} if at is None else {"at": list(at)}
        settings["arms"] = {
            "erm": {"title": "erm", "policy": "none"},
            "frozen": {"title": "frozen", "policy": "none", "training": {"freeze": "backbone"}},
            "mixup": mixup,
        }
        path = tmp_path / "texts.toml"
        path.write_text(tomlkit.dumps(settings))
        return path

    return write


@pytest.mark.usefixtures("library")
def test_a_network_for_texts_is_fine_tuned_in_a_study_and_scored_without_its_folder(
    text_recipe, films, folder, tmp_path, vicinal
):
    out = tmp_path / "study"
    done = vicinal("study", text_recipe(), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "its head starts from random weights" in done.stderr
    shutil.rmtree(folder)
    for trial in (out / "trials").iterdir():
        scored = vicinal("score", trial / "checkpoint.safetensors", "--json")
        assert scored.exit_code == 0, scored.stderr
        result = json.loads((trial / "result.json").read_text())
        assert json.loads(scored.stdout)["metrics"]["accuracy"] == result["test_metric"]
    predicted = vicinal("predict", trial, "--data", source(films, folder), "--json")
    recorded = load_file(trial / "outputs.safetensors")["last"].softmax(1)
    found = [list(row["probabilities"].values()) for row in json.loads(predicted.stdout)]
    assert torch.equal(torch.tensor(found), recorded)
    network = vicinal_load(trial)
    rows = [line.split(",") for line in films.read_text().splitlines()[1:]]
    expected = network([text for _, text, _ in rows])
    assert torch.equal(network(films), expected)
    assert torch.equal(network([{"review": text} for _, text, _ in rows]), expected)
    assert torch.equal(network("good film"), network(["good film"]))
    films.write_text("review\ngood film\n\n")
    assert torch.equal(network(films), network(["good film"]))
    films.write_text('review,liked\ngood film,\n"",no\n')
    with pytest.raises(UserError, match=r"films.csv row 3: the text 'review' is missing"):
        network(films)
    program = tmp_path / "net.pt2"
    exported = vicinal("export", trial, "--to", "exported", "--out", program)
    assert exported.exit_code == 0, exported.output


@pytest.mark.usefixtures("library")
def test_mixing_tokens_is_an_error_that_names_the_embedding(text_recipe, tmp_path, vicinal):
    done = vicinal("train", text_recipe(at=["input"]), "--arm", "mixup", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "arms.mixup.at: tokens are numbers of words" in done.stderr
    assert 'at = ["embedding"]' in done.stderr


def test_texts_are_mixed_at_the_embedding_unless_another_layer_is_named(text_recipe):
    assert read_recipe(str(text_recipe(at=None))).arms["mixup"].at == ("embedding",)
    assert read_recipe(str(text_recipe(at=["layers.1"]))).arms["mixup"].at == ("layers.1",)


@pytest.mark.usefixtures("library")
def test_a_network_for_numbers_does_not_take_texts(text_recipe, tmp_path, vicinal):
    done = vicinal(
        "train", text_recipe(name="mlp", at=["layer1"]), "--arm", "erm", "--out", tmp_path / "run"
    )
    assert done.exit_code == 2
    assert "mlp failed on two examples of shape (6,) and type torch.int64" in done.stderr


@pytest.mark.usefixtures("library")
def test_texts_are_described_but_not_converted(films, folder, tmp_path, vicinal):
    done = vicinal("data", "info", source(films, folder))
    assert done.exit_code == 0, done.stderr
    assert "tokens of texts" in done.stdout
    done = vicinal("data", "convert", source(films, folder), tmp_path / "films.npz")
    assert done.exit_code == 2
    assert "expected images or arrays, got texts" in done.stderr


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "case",
    [
        ({"pad_token_id": 3}, "expects padding 3, got a tokenizer that pads with 0"),
        ({"vocab_size": 7}, "expects tokens below 7, got a tokenizer with token 9"),
    ],
)
def test_a_tokenizer_that_is_not_that_of_the_network_is_refused(
    text_recipe, folder, tmp_path, vicinal, case
):
    changes, words = case
    write_config(folder, **changes)
    recipe = text_recipe(name=f"hf:{folder}?pretrained=false")
    done = vicinal("study", recipe, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Choose the tokenizer of the network" in done.stderr


@pytest.mark.usefixtures("library")
def test_columns_that_are_not_read_may_have_any_type(films, folder):
    table = arrow_csv.read_csv(films)
    tags = pa.array([["a"]] * len(table), pa.list_(pa.string()))
    path = films.with_suffix(".parquet")
    parquet.write_table(table.append_column("tags", tags), path)
    assert len(load(source(path, folder)).train) == 32
    names = ["number", "my review", "R&D", "tags"]
    parquet.write_table(parquet.read_table(path).rename_columns(names), path)
    spec = f"text:{path}?text=my%20review&label=R%26D&tokenizer={folder}"
    assert len(load(spec).train) == 32


@pytest.mark.usefixtures("library")
def test_new_texts_need_no_groups(films, folder, tmp_path):
    trained = load(source(films, folder, "&group=number"))
    new = tmp_path / "new.csv"
    new.write_text("review,liked\ngood film,yes\nbad,no\n")
    found = load(f"text:{new}", preparation=trained.preparation)
    assert len(found.test) == 2
    table = arrow_csv.read_csv(films)
    arrow_csv.write_csv(table.drop_columns(["number"]), tmp_path / "bare.csv")
    with pytest.raises(
        UserError,
        match=r"bare\.csv: these are the training rows, but the column 'number', by whose",
    ):
        load(f"text:{tmp_path / 'bare.csv'}", preparation=trained.preparation)
