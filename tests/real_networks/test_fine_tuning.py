"""Fine-tune tiny networks of the real libraries; scripts/test-networks installs them and runs this.

No hub is reached: pretrained weights are random ones that lie where the libraries look for them.
"""

import json
import os
import re
import shutil

import numpy as np
import pytest
import tomlkit
import torch
from safetensors.torch import load_file, save_file

from vicinal.data import load
from vicinal.errors import UserError
from vicinal.mixing import MixedInside, MixUp
from vicinal.models import build, head_names, input_format
from vicinal.training.arm_checks import _has_no_effect

REASON = "scripts/test-networks installs it"
timm = pytest.importorskip("timm", reason=REASON)
torchvision = pytest.importorskip("torchvision", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
tokenizers = pytest.importorskip("tokenizers", reason=REASON)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "the", "very"]


@pytest.fixture
def vicinal_study(tmp_path, vicinal):
    """Return a function that runs a study of a frozen, an unfrozen and a mixed arm."""

    def run(name, source, *, at):
        arms = {
            "frozen": {"title": "frozen", "policy": "none", "training": {"freeze": "backbone"}},
            "whole": {"title": "whole", "policy": "none"},
            "mixup": {"title": "mixup", "policy": "mixup", "alpha": 0.4, "at": at},
        }
        training = {"epochs": 2, "batch_size": 32, "head_lr_factor": 10.0, "ema_decay": 0.9}
        training["optimizer"] = {"name": "adamw", "lr": 0.001}
        training["schedule"] = {"name": "cosine"}
        recipe = {"name": "fine", "baseline": "whole", "seeds": 1, "model": {"name": name}}
        recipe |= {"data": {"source": source}, "training": training, "arms": arms}
        path, out = tmp_path / "fine.toml", tmp_path / "study"
        path.write_text(tomlkit.dumps(recipe))
        done = vicinal("study", path, "--out", out)
        assert done.exit_code == 0, done.stderr
        print(done.stderr, done.stdout)
        return {one.name.partition("-")[0]: one for one in (out / "trials").iterdir()}

    return run


def checked(trials, before, vicinal, *, head):
    """Compare the weights of the arms with the pretrained ones, and score all checkpoints."""
    for arm, folder in trials.items():
        stored = load_file(folder / "checkpoint.safetensors")
        after = {k[9:]: v for k, v in stored.items() if k.startswith("/weights/")}
        same = {k for k in before.keys() & after.keys() if torch.equal(before[k], after[k])}
        body = {k for k in before if not k.startswith(head)}
        assert body <= after.keys()
        if arm == "frozen":
            assert body <= same
        else:
            moved = body - same
            assert len(moved) > len(body) / 2
        scored = vicinal("score", folder / "checkpoint.safetensors", "--json")
        assert scored.exit_code == 0, scored.stderr
        result = json.loads((folder / "result.json").read_text())
        assert json.loads(scored.stdout)["metrics"]["accuracy"] == result["test_metric"]


def test_timm_from_a_file_frozen_and_unfrozen(tmp_path, vicinal_study, vicinal):
    torch.manual_seed(1)
    file = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    trials = vicinal_study(f"timm:test_resnet?weights={file}", "digits", at=["input", "layer1"])
    before = load_file(file)
    file.unlink()
    checked(trials, before, vicinal, head="fc.")


def test_timm_from_the_cache_of_the_hub(tmp_path, vicinal_study, vicinal, monkeypatch):
    from huggingface_hub import constants

    torch.manual_seed(2)
    cache = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    (cache / "snapshots" / "0").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0")
    file = cache / "snapshots" / "0" / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "timm:test_vit?pretrained=true"
    assert input_format(name).mean == (0.5, 0.5, 0.5)
    network = build(name, shape=(3, 160, 160), classes=10)
    own, before = network.state_dict(), load_file(file)
    assert all(torch.equal(own[k], v) for k, v in before.items() if not k.startswith("head."))
    digits, arrays = load("digits"), {}
    for which, split in (("train", digits.train), ("test", digits.test)):
        images = split.inputs[:200, 0].repeat_interleave(4, 1).repeat_interleave(4, 2) * 15
        arrays |= {
            f"{which}_images": images.numpy(),
            f"{which}_labels": split.targets[:200].numpy(),
        }
    np.savez(tmp_path / "digits.npz", **arrays)
    trials = vicinal_study(name, f"npz:{tmp_path / 'digits.npz'}", at=["blocks.0"])
    shutil.rmtree(tmp_path / "hub")
    stay = {k: v for k, v in before.items() if "pos_embed" not in k}  # resized for 32x32 pixels
    checked(trials, stay, vicinal, head="head.")


def test_timm_without_cache_is_one_sentence():
    with pytest.raises(UserError, match=r"not available.*hf download timm/test_vit2") as caught:
        build("timm:test_vit2?pretrained=true", shape=(3, 160, 160), classes=10)
    assert "\n" not in str(caught.value)


def test_torchvision_from_its_cache_frozen_and_unfrozen(
    tmp_path, vicinal_study, vicinal, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    before = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save(before, folder / url.rpartition("/")[2])
    name = "torchvision:shufflenet_v2_x0_5?weights=DEFAULT"
    assert input_format(name).size == (224, 224)
    trials = vicinal_study(name, "digits", at=["input", "stage2"])
    shutil.rmtree(tmp_path / "torch")
    checked(trials, before, vicinal, head="fc.")
    with pytest.raises(UserError, match="torchvision looked for https") as caught:
        build(name, shape=(3, 32, 32), classes=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["googlenet", "inception_v3", "vgg11", "squeezenet1_0", "vit_b_32", "densenet121"]
)
def test_every_kind_of_network_of_torchvision_takes_weights_of_another_head(name, monkeypatch):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    auxiliary = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):  # as large as they are, only names and shapes matter
        state = torchvision.models.get_model(name, weights=None, **auxiliary).state_dict()
    state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in state.items()}
    if name == "densenet121":  # whose file has the names of an older version
        older = r"(denselayer\d+\.(?:norm|conv))([12])\."
        state = {re.sub(older, r"\1.\2.", k): v for k, v in state.items()}
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **how: state)
    shape = (3, 299, 299) if name == "inception_v3" else (3, 224, 224)
    network = build(f"torchvision:{name}?weights=DEFAULT", shape=shape, classes=5)
    own, head = network.state_dict(), head_names(network)
    assert all(not own[k].any() for k in own if k not in head and "num_batches" not in k)
    assert network.eval()(torch.zeros(1, *shape)).shape == (1, 5)


def save_text_network(folder, kind, **settings):
    words = {word: k for k, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(4)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(WORDS), pad_token_id=0, **settings
    )
    transformers.AutoModel.from_config(config).save_pretrained(folder)


@pytest.fixture
def films(tmp_path):
    rows = [
        ("a very good film", "yes"),
        ("good film", "yes"),
        ("the bad film", "no"),
        ("bad", "no"),
    ]
    path = tmp_path / "films.csv"
    path.write_text("\n".join(["text,label", *[",".join(row) for row in rows * 25], ""]))
    return path


KINDS = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32, "max_position_embeddings": 40},
    "electra": {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "intermediate_size": 32},
    "modernbert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32},
    "deberta-v2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32},
}


def test_a_text_network_frozen_and_unfrozen(tmp_path, films, vicinal_study, vicinal):
    folder = tmp_path / "tiny"
    save_text_network(folder, "distilbert", **KINDS["distilbert"])
    source = f"text:{films}?text=text&label=label&tokenizer={folder}"
    trials = vicinal_study(f"hf:{folder}", source, at=["embedding", "layers.0"])
    saved = load_file(folder / "model.safetensors")
    before = {f"model.distilbert.{name}": value for name, value in saved.items()}
    shutil.rmtree(folder)
    checked(trials, before, vicinal, head="model.classifier")
    again = load(source, preparation=_preparation(trials["whole"]))
    assert again.train.inputs.shape[1] == 6


def _preparation(folder):
    from vicinal.training.checkpoints import read_checkpoint

    return read_checkpoint(folder / "checkpoint.safetensors").info.preparation


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_of_texts_can_be_mixed_at_their_embedding_and_layers(tmp_path, kind):
    save_text_network(tmp_path, kind, **KINDS[kind])
    network = build(f"hf:{tmp_path}", shape=(6,), classes=3).eval()
    x = torch.tensor([[2, 4, 6, 3, 0, 0], [2, 7, 9, 4, 6, 3]])
    mixed = MixedInside(network, MixUp(1.0), at=["embedding", "layers.?"])
    assert mixed.layers == ["embedding", "layers.0", "layers.1"]
    for layer in mixed.layers:
        plan = MixUp(1.0).draw(2)
        assert torch.isfinite(mixed(x, plan, at=layer)).all()
    whole = network.model(input_ids=x, attention_mask=(x != 0).long()).logits
    torch.testing.assert_close(network(x), whole)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_text_networks_that_need_the_tokens_are_refused(tmp_path, kind):
    settings = {"n_embd": 16, "n_layer": 2, "n_head": 2}
    if kind == "t5":
        settings = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    save_text_network(tmp_path, kind, eos_token_id=3, bos_token_id=2, **settings)
    with pytest.raises(UserError, match="Choose an encoder") as caught:
        build(f"hf:{tmp_path}", shape=(6,), classes=3)
    assert "\n" not in str(caught.value)


def test_an_image_network_of_hugging_face_frozen_and_unfrozen(tmp_path, vicinal_study, vicinal):
    folder = tmp_path / "tiny"
    torch.manual_seed(5)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=7,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    known = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    known |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    known |= {"size": {"height": 8, "width": 8}, "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(known))
    assert input_format(f"hf:{folder}").std == pytest.approx((0.25,) * 3)
    trials = vicinal_study(f"hf:{folder}", "digits", at=["input", "layers.1"])
    # The names in the file are not those of the network.
    before = build(f"hf:{folder}", shape=(3, 8, 8), classes=10).state_dict()
    shutil.rmtree(folder)
    checked(trials, before, vicinal, head="model.classifier")


@pytest.mark.parametrize("include_top", [False, True])
def test_inputs_are_normalized_as_by_the_processor_of_efficientnet(tmp_path, include_top):
    processor = transformers.EfficientNetImageProcessor(
        include_top=include_top, do_resize=False, do_center_crop=False
    )
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = np.asarray(processor(pixels, return_tensors="np")["pixel_values"][0])
    known = input_format(f"hf:{tmp_path}")
    ours = ((pixels / 255 - known.mean) / known.std).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_channels_in_another_order_are_refused(tmp_path):
    processor = transformers.MobileViTImageProcessor(do_flip_channel_order=True)
    processor.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="order blue, green, red"):
        input_format(f"hf:{tmp_path}")


def test_a_name_of_hugging_face_without_cache_is_one_sentence():
    assert os.environ.get("HF_HUB_OFFLINE"), "run scripts/test-networks"
    with pytest.raises(UserError, match=r"not available.*hf download nobody/nothing") as caught:
        build("hf:nobody/nothing", shape=(6,), classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["distilbert", "modernbert"])
def test_weights_of_another_task_are_read_from_a_file_but_not_those_of_more_layers(tmp_path, kind):
    save_text_network(tmp_path, kind, **KINDS[kind])
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    trained = transformers.AutoModelForMaskedLM.from_config(config)
    file = tmp_path / "masked.safetensors"
    trained.save_pretrained(tmp_path / "masked")
    shutil.copy(tmp_path / "masked" / "model.safetensors", file)
    log = []
    network = build(f"hf:{tmp_path}?weights={file}", shape=(6,), classes=3, log=log.append)
    before = trained.base_model.state_dict()
    after = network.model.base_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "the head starts from random weights" in log[-1]

    config.num_hidden_layers = 3
    if getattr(config, "layer_types", None):
        config.layer_types = [*config.layer_types, config.layer_types[-1]]
    deeper = transformers.AutoModelForSequenceClassification.from_config(config)
    deeper.save_pretrained(tmp_path / "deeper")
    deeper_file = tmp_path / "deeper" / "model.safetensors"
    with pytest.raises(UserError, match="more tensors"):
        build(f"hf:{tmp_path}?weights={deeper_file}", shape=(6,), classes=3)


@pytest.mark.parametrize(
    ("kind", "settings", "stages"),
    [
        ("swin", {"embed_dim": 8, "depths": [1, 3], "num_heads": [1, 2], "window_size": 2}, 2),
        ("convnext", {"hidden_sizes": [8, 16], "depths": [1, 3], "num_stages": 2}, 2),
        ("poolformer", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 3, 1, 1]}, 4),
    ],
)
def test_image_networks_of_several_stages_are_mixed_after_each(tmp_path, kind, settings, stages):
    config = transformers.AutoConfig.for_model(
        kind, image_size=32, patch_size=4, num_channels=3, **settings
    )
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    network = build(f"hf:{tmp_path}", shape=(3, 32, 32), classes=3).eval()
    x = torch.rand(2, 3, 32, 32)
    mixed = MixedInside(network, MixUp(1.0), at=["layers.?"])
    assert mixed.layers == [f"layers.{k}" for k in range(stages)]
    for layer in mixed.layers:
        whole = MixUp(1.0).draw(2)
        assert torch.isfinite(mixed(x, whole, at=layer)).all()
    torch.testing.assert_close(network(x), network.model(pixel_values=x).logits)


def test_a_stage_whose_output_the_classifier_does_not_use_cannot_be_mixed(tmp_path):
    config = transformers.CvtConfig(
        embed_dim=[8, 8, 8], num_heads=[1, 1, 1], depth=[1, 2, 3], num_labels=3
    )
    transformers.CvtForImageClassification(config).save_pretrained(tmp_path)
    network = build(f"hf:{tmp_path}", shape=(3, 32, 32), classes=3).eval()
    x = torch.rand(4, 3, 32, 32)
    dead = [_has_no_effect(network, f"layers.{k}", x, network(x)) for k in range(3)]
    assert dead == [False, False, True]


def test_the_classifier_of_clip_is_a_head(tmp_path):
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    config = transformers.CLIPConfig(vision_config=vision)
    trained = transformers.CLIPForImageClassification(config)
    trained.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    network = build(f"hf:{tmp_path}?weights={file}", shape=(3, 32, 32), classes=5)
    assert head_names(network) == {"model.classifier.weight", "model.classifier.bias"}


def test_weights_of_other_names_are_not_taken_for_pretrained_ones(tmp_path):
    save_text_network(tmp_path, "distilbert", dim=16, hidden_dim=32, n_layers=2, n_heads=2)
    build(f"hf:{tmp_path}", shape=(6,), classes=3)
    path = tmp_path / "model.safetensors"
    renamed = {f"module.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks \d+ of \d+ tensors .* Choose other weights"):
        build(f"hf:{tmp_path}", shape=(6,), classes=3)
