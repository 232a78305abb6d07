"""The command line: parses arguments and calls functions."""

import io
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from vicinal import __version__
from vicinal.command_errors import TRIALS_FAILED, errors_reported, report
from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible

_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(
    name="vicinal",
    help="Train networks with and without mixing, and measure whether it helps.",
    epilog="Start with: vicinal study digits",
    **_SETTINGS,
)
data_app = typer.Typer(
    name="data",
    help="List, describe, download and convert data sets.",
    epilog="Start with: vicinal data info digits",
    **_SETTINGS,
)


def _print_version(version: bool) -> None:
    if version:
        typer.echo(f"vicinal {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


_SEEDS: dict[str, Any] = {"min": 0, "max": 2**32 - 1}
_TRAINED = "the one used in training"
_ROOT, _RUNS = "$VICINAL_DATA, or ./data", "runs/NAME, NAME being that of the recipe or the data"
_ARCHIVES = "cifar10, cifar100, mnist, fashion-mnist, speech-commands, abalone or htru2."
_POLICIES = "mixup, cutmix, resizemix, fmix or dirichlet; can be repeated."
_RECIPES = "a name that vicinal study --list shows, such as digits, or the path of a .toml file"

_Recipe = Annotated[str, Argument(help=f"The recipe: {_RECIPES}.")]
_Spec = Annotated[str, Argument(help="Data set, such as folder:PATH; see vicinal data list.")]
_Root = Annotated[Path | None, Option(help="Folder of the data sets.", show_default=_ROOT)]
_Json = Annotated[bool, Option("--json", help="Print the result as JSON, and nothing else.")]
_Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
_Skip = Annotated[bool, Option("--skip-bad", help="Skip and report examples that cannot be read.")]
_MaxBytes = Annotated[int, Option(help="Largest size of a file after decoding, in bytes.", min=1)]
_Seed = Annotated[int, Option(help="Seed for the train/test split.", **_SEEDS)]
_Fraction = Annotated[
    float, Option(help="Fraction for testing, if the data set has no test split.")
]
_Trained = Annotated[Path, Argument(help="A checkpoint, or the folder of a trial or study.")]
_Arm = Annotated[
    str | None,
    Option(
        help="Arm of the study.",
        show_default="the best of those with the verdict better, else the baseline",
    ),
]
_Accelerator = Annotated[str, Option(help="Device: auto, cpu, cuda or mps.")]
_AllowImport = Annotated[
    bool,
    Option(
        "--allow-import",
        help="Import the modules that the checkpoint names, which runs their code.",
    ),
]
_OWN = "that of the recipe, or chosen for the data set"
_Epochs = Annotated[int | None, Option(help="Number of epochs.", show_default=_OWN)]
_Source = Annotated[str | None, Option(help="Data set to use instead of the recipe's.")]
_What = Annotated[
    str,
    Argument(
        metavar="WHAT",
        help=f"A data set, such as folder:PATH or table.csv; a recipe ({_RECIPES}); or claims, "
        "which tests the claims of the mixup paper.",
    ),
]
_ARMS = "Arms, such as erm,mixup,cutmix,manifold; see docs/study.md."
_Arms = Annotated[str | None, Option(help=_ARMS, show_default=_OWN)]
_Alpha = Annotated[float | None, Option(help="Alpha of all arms that have one.", min=0)]
_Model = Annotated[
    str | None, Option(help="Network, such as small-cnn; see docs/training.md.", show_default=_OWN)
]
_Metric = Annotated[
    str | None, Option(help="Metric by which arms are compared, such as accuracy or auroc.")
]
_Minutes = Annotated[
    float | None,
    Option(
        help="Time that the study may take, if WHAT is a data set.", min=0.01, show_default="10"
    ),
]
_Set = Annotated[
    list[str], Option(help="FIELD=VALUE of the recipe, such as training.lr=0.1; can be repeated.")
]
_Variant = Annotated[
    str | None, Option(help="A variant of the recipe; vicinal study RECIPE --show lists them.")
]


@app.command(epilog="Example: vicinal study folder:flowers --arms erm,mixup,cutmix")
def study(
    what: _What = "digits",
    out: Annotated[Path | None, Option(help="Folder of the study.", show_default=_RUNS)] = None,
    arms: _Arms = None,
    alpha: _Alpha = None,
    model: _Model = None,
    metric: _Metric = None,
    seeds: Annotated[int | None, Option(help="Number of seeds per arm.", show_default=_OWN)] = None,
    epochs: _Epochs = None,
    minutes: _Minutes = None,
    set: _Set = [],  # noqa: B006 - Typer copies it
    data: _Source = None,
    variant: _Variant = None,
    list: Annotated[
        bool, Option("--list", help="List the recipes that come with vicinal.")
    ] = False,
    show: Annotated[
        bool, Option("--show", help="Show a recipe, and how long it takes on this machine.")
    ] = False,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Find out whether mixing helps on a data set.

    Trains every arm with every seed, compares the arms, and writes a report. An arm is one way to
    train, such as with mixup or without mixing. A trial is the training of one arm with one seed,
    on one split of the data, and with one fraction of corrupted labels.

    If WHAT is a data set, a recipe is generated whose study takes about --minutes or less. It is
    written to the folder of the study, where you can edit it; settings of finished trials stay.

    Finished trials are kept. Run the same command again to resume a study or to show a finished
    one. Run it with more --seeds or more --arms to add trials to the study.
    """
    stopped = "stopped; finished trials are kept: run the same command to resume"
    with errors_reported(debug, stopped=stopped):
        if list or show:
            from vicinal.reports.recipes import print_recipe, print_recipes, recipes
            from vicinal.reports.terminal import Terminal
            from vicinal.training.recipe_changes import Changes

            if list and json:
                _print_json(recipes())
            elif list:
                print_recipes(Terminal())
            elif json or minutes is not None or out is not None:
                given = "--json" if json else "--out" if out else "--minutes"
                raise UserError(f"{given} has no meaning with --show. Leave it out.")
            else:
                asked = (data, _split(arms), alpha, model, metric, tuple(set))
                changes = Changes(seeds, epochs, *asked)
                print_recipe(what, variant=variant, changes=changes, console=Terminal())
            return
        from vicinal import api
        from vicinal.reports.study_tables import print_study
        from vicinal.reports.terminal import Terminal
        from vicinal.studies.summary import summary_text

        if what == "claims":
            others: dict[str, Any] = {
                "arms": arms,
                "alpha": alpha,
                "model": model,
                "metric": metric,
                "data": data,
            }
            others |= {"epochs": epochs, "minutes": minutes, "set": set, "variant": variant}
            for name, value in others.items():
                if value is not None and value != []:
                    raise UserError(f"--{name}: claims expects --seeds or --out, got --{name}.")
            _study_claims(out or Path("runs/claims"), seeds, json=json)
            return
        done = api.study(
            what,
            arms=_split(arms),
            alpha=alpha,
            model=model,
            metric=metric,
            seeds=seeds,
            epochs=epochs,
            minutes=minutes,
            settings=set,
            data=data,
            variant=variant,
            out=out,
        )
        if json:
            sys.stdout.write(summary_text(done.summary))
        elif isinstance(done, api.GanStudyResult):
            from vicinal.reports.gan_report import print_gan_study

            print_gan_study(done.summary, Terminal())
            _print(f"report: {done.report()}")
        else:
            print_study(done.summary, Terminal())
            _print(f"report: {done.folder / 'report.html'}")
        if done.failures:
            raise typer.Exit(TRIALS_FAILED)


def _study_claims(folder: Path, seeds: int | None, *, json: bool) -> None:
    from vicinal import api
    from vicinal.reports.claims_page import print_claims
    from vicinal.reports.terminal import Terminal

    found = api.claims(folder, seeds=seeds)
    if json:
        sys.stdout.write((folder / "claims.json").read_text("utf-8"))
    else:
        print_claims(found, Terminal())
        _print(f"report: {folder / 'claims.html'}")
    if any(one.failed for one in found):
        raise typer.Exit(TRIALS_FAILED)


def _split(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",")) if words else ()


@app.command(epilog="Example: vicinal init folder:flowers --minutes 5")
def init(
    what: Annotated[
        str | None,
        Argument(
            metavar="WHAT", help="Data set, such as folder:PATH, or the path of a folder or file."
        ),
    ] = None,
    arms: _Arms = None,
    alpha: _Alpha = None,
    model: _Model = None,
    metric: _Metric = None,
    seeds: Annotated[int | None, Option(help="Number of seeds per arm.", show_default=_OWN)] = None,
    epochs: _Epochs = None,
    minutes: _Minutes = None,
    set: _Set = [],  # noqa: B006 - Typer copies it
    schema: Annotated[
        bool, Option("--schema", help="Print the JSON schema of recipes, for editors.")
    ] = False,
    debug: _Debug = False,
) -> None:
    """Print a recipe for a data set, with comments.

    Network, augmentation, batch size, learning rate and epochs are chosen by rules that the
    comments state. Seeds and epochs are then reduced, if necessary, to fit --minutes.
    """
    with errors_reported(debug):
        if schema:
            from vicinal.training.settings import Recipe

            _print_json(Recipe.model_json_schema())
            return
        if what is None:
            raise UserError("WHAT: expected a data set, such as folder:flowers, got nothing.")
        from vicinal.studies.prepare import MINUTES, generated, source_of
        from vicinal.training.recipe_changes import Changes

        changes = Changes(seeds, epochs, None, _split(arms), alpha, model, metric, tuple(set))
        source = source_of(what, report)
        budget = MINUTES if minutes is None else minutes
        _, text, _ = generated(source, changes, budget, report, with_notes=True)
        sys.stdout.write(text)


@app.command("report", epilog="Example: vicinal report runs/digits")
def report_command(
    folders: Annotated[list[Path], Argument(metavar="FOLDER...", help="Folders of studies.")],
    out: Annotated[
        Path | None,
        Option(
            help="Folder to write to.", show_default="that of the study; ./comparison for several"
        ),
    ] = None,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Redraw the report of a study, or compare several studies.

    Reads the results in the folders, and trains nothing. Trials that are not finished are left out.
    A comparison shows the arms and metrics that all studies have, and says whether their data and
    settings differ.
    """
    with errors_reported(debug):
        from vicinal.reports.redraw import redraw

        page, summaries = redraw(folders, out)
        if json:
            _print_json(summaries)
        else:
            _print(f"report: {page}")


@app.command(epilog="Example: vicinal train digits --arm mixup --epochs 10 --out runs/one")
def train(
    recipe: _Recipe,
    arm: Annotated[str, Option(help="Name of one of the recipe's arms.")],
    out: Annotated[Path, Option(help="Folder for the checkpoint, metrics and result.")],
    resume: Annotated[bool, Option("--resume", help="Resume the trial in --out.")] = False,
    seed: Annotated[int, Option(help="Seed for weights, data order and mixing.", **_SEEDS)] = 0,
    corrupted: Annotated[
        float, Option(help="Fraction of training labels to replace with random ones.", min=0, max=1)
    ] = 0.0,
    epochs: Annotated[
        int | None, Option(help="Number of epochs.", show_default="the recipe's")
    ] = None,
    data: _Source = None,
    variant: _Variant = None,
    devices: Annotated[int, Option(help="Number of devices per machine.", min=1)] = 1,
    nodes: Annotated[int, Option(help="Number of machines.", min=1)] = 1,
    logger: Annotated[
        list[str], Option(help="tensorboard, wandb, mlflow or none; can be repeated.")
    ] = ["tensorboard"],  # noqa: B006 - Typer copies it
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Train one arm of a recipe with one seed, and save the network.

    Writes checkpoint.safetensors, metrics.csv and result.json. During training, the state is saved
    in state.safetensors. If training is interrupted, --resume continues from that state. On the
    same hardware, it ends with the same weights as without the interruption, bit for bit.
    """
    with errors_reported(debug, stopped="stopped; resume from the last saved state with --resume"):
        from vicinal.reports.progress import TrainProgress
        from vicinal.reports.terminal import Terminal, print_result
        from vicinal.studies import Trial
        from vicinal.training.recipe import read_recipe
        from vicinal.training.recipe_changes import Changes
        from vicinal.training.single_trial import train_one
        from vicinal.training.trial import Callbacks

        changes = Changes(epochs=epochs, data=data)
        resolved = read_recipe(recipe, variant=variant, changes=changes)
        if arm not in resolved.arms:
            raise UserError(unknown("arm", arm, resolved.arms))
        progress = TrainProgress(Terminal(stderr=True), resolved.training_of(arm).epochs)
        with progress.bars:
            result = train_one(
                resolved,
                Trial(arm, corrupted, seed),
                out,
                resume=resume,
                devices=devices,
                nodes=nodes,
                loggers=[name for name in logger if name != "none"],
                callbacks=Callbacks(progress.epoch, progress.log),
            )
        if result is None:  # only the first of several processes has it
            return
        if json:
            _print_json(result.model_dump(mode="json"))
        else:
            print_result(result, str(out / "checkpoint.safetensors"), Terminal())


@app.command(epilog="Example: vicinal score runs/one/checkpoint.safetensors")
def score(
    trained: _Trained,
    data: Annotated[str | None, Option(help="Data set to use.", show_default=_TRAINED)] = None,
    split: Annotated[str, Option(help="train, test or, if there is one, validation.")] = "test",
    arm: _Arm = None,
    root: Annotated[
        Path | None,
        Option(
            help="Folder of the data sets.", show_default=f"with --data: {_ROOT}; else {_TRAINED}"
        ),
    ] = None,
    seed: Annotated[
        int | None, Option(help="Seed for the train/test split.", show_default=_TRAINED, **_SEEDS)
    ] = None,
    test_fraction: Annotated[
        float | None,
        Option(help="Fraction for testing, if there is no test split.", show_default=_TRAINED),
    ] = None,
    pairs: Annotated[int, Option(help="Number of confused pairs to show.", min=0)] = 5,
    accelerator: _Accelerator = "auto",
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    allow_import: _AllowImport = False,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Evaluate a trained network on a data set.

    Prints the metrics of the task, each next to its value for a constant prediction, and the most
    confused pairs of classes. Inputs are prepared in the same way as in training. Without --data,
    the data set that was used for training is used again.
    """
    with errors_reported(debug):
        from vicinal.reports.terminal import Terminal, print_scores
        from vicinal.studies.trained_arm import chosen_checkpoints
        from vicinal.training.evaluation_data import load_as_trained
        from vicinal.training.score import score_network
        from vicinal.training.trained_network import load_network

        chosen = chosen_checkpoints(trained, arm=arm)
        if chosen.reason:
            report(f"using {chosen.reason}")
        path = chosen.paths[0]
        network = load_network(path, allow_import=allow_import, accelerator=accelerator)
        loaded = load_as_trained(
            path,
            network.info,
            source=data,
            split=split,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
            allow_import=allow_import,
            log=report,
        )
        scores = score_network(network, loaded, split=split, confusions=pairs)
        if json:
            _print_json(scores._asdict() | {"worst": [pair._asdict() for pair in scores.worst]})
        else:
            print_scores(scores, Terminal())


@app.command(epilog="Example: vicinal predict runs/digits --data digits --arm erm")
def predict(
    trained: _Trained,
    files: Annotated[
        list[Path] | None,
        Argument(
            help="Images, recordings, tables (of features or texts), .npy arrays, or folders of "
            "them.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, Option(help="Data set to predict, instead of files.", show_default=False)
    ] = None,
    split: Annotated[str, Option(help="With --data: test, train or validation.")] = "test",
    root: _Root = None,
    arm: _Arm = None,
    ensemble: Annotated[
        bool, Option("--ensemble", help="Average the probabilities or values of all seeds.")
    ] = False,
    out: Annotated[
        Path | None, Option(help="File to write, which must not exist.", show_default="stdout")
    ] = None,
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    accelerator: _Accelerator = "auto",
    allow_import: _AllowImport = False,
    json: Annotated[bool, Option("--json", help="Write JSON instead of CSV.")] = False,
    debug: _Debug = False,
) -> None:
    """Predict classes, labels or values for new files.

    Writes a row for each file, or for each row of a table: the prediction, and the probability of
    each class. Inputs are prepared in the same way as in training. Predictions are written as soon
    as they are computed, and are kept if a later file cannot be read.
    """
    with errors_reported(debug, stopped="stopped; finished predictions are written"):
        from vicinal.data.raw_examples import raw_examples
        from vicinal.reports.predictions import opened, write_predictions
        from vicinal.studies.trained_arm import chosen_checkpoints
        from vicinal.training.evaluation_data import examples_as_trained
        from vicinal.training.prediction import predict_examples
        from vicinal.training.trained_network import load_network

        if bool(files) == (data is not None):
            raise UserError("predict: expected either files or --data. Pass one of them.")
        if files and (root is not None or split != "test"):
            raise UserError(
                "predict: --root and --split are for --data, got files. Leave them out."
            )
        chosen = chosen_checkpoints(trained, arm=arm, ensemble=ensemble)
        if chosen.reason:
            report(f"using {chosen.reason}")
        networks = [
            load_network(path, allow_import=allow_import, accelerator=accelerator)
            for path in chosen.paths
        ]
        if data is None:
            reading = networks[0].reading(skip_bad=skip_bad, max_bytes=max_bytes)
            examples = raw_examples(files, reading)
        else:
            examples = examples_as_trained(
                chosen.paths[0],
                networks[0].info,
                source=data,
                split=split,
                root=root,
                skip_bad=skip_bad,
                max_bytes=max_bytes,
                log=report,
            )
        with opened(out) as file:
            found = predict_examples(networks, examples, report, skip_bad=skip_bad)
            write_predictions(found, file, as_json=json)
        if out:
            report(f"predictions: {out}")


@app.command(epilog="Example: vicinal export runs/digits --arm erm --to exported --out net.pt2")
def export(
    trained: _Trained,
    to: Annotated[str, Option(help="onnx, or exported (for torch.export.load).")],
    out: Annotated[Path, Option(help="File to write.")],
    arm: _Arm = None,
    allow_import: _AllowImport = False,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Export a trained network, so that it runs without vicinal.

    The exported network maps a batch of inputs to probabilities or real values. Inputs are uint8
    images, spectrograms or waveforms, which it normalizes; encoded rows of tables; or token IDs.
    Its outputs are compared with those of the original network; for ONNX, this needs onnxruntime.
    """
    with errors_reported(debug):
        from vicinal.studies.trained_arm import chosen_checkpoints
        from vicinal.training.export import expected_inputs, export_network
        from vicinal.training.trained_network import load_network

        chosen = chosen_checkpoints(trained, arm=arm)
        if chosen.reason:
            report(f"using {chosen.reason}")
        network = load_network(chosen.paths[0], allow_import=allow_import, accelerator="cpu")
        compared, inputs = export_network(network, out, to), expected_inputs(network)
        if json:
            _print_json({"file": str(out), "compared": compared, "inputs": inputs})
        else:
            _print(f"exported: {out} ({compared})")
            _print(f"inputs: {inputs}")


@app.command(epilog="Example: vicinal show --policy cutmix --seed 3 --out cutmix.svg")
def show(
    policy: Annotated[list[str] | None, Option(help=_POLICIES, show_default="all")] = None,
    alpha: Annotated[
        float, Option(help="Positive parameter of the Beta or Dirichlet distribution.")
    ] = 1.0,
    seed: Annotated[int, Option(help="Seed for the random choices.", **_SEEDS)] = 0,
    size: Annotated[int, Option(help="Number of examples.", min=2, max=16)] = 6,
    out: Annotated[Path, Option(help="The .svg file to write.")] = Path("mixed.svg"),
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Draw handwritten digits before and after mixing."""
    with errors_reported(debug):
        from vicinal.reports.show import run_show

        shown = run_show(policy or (), alpha=alpha, seed=seed, size=size, out=out)
        if json:
            _print_json(shown)
        else:
            _print(f"figure: {shown['file']}")


app.add_typer(data_app)


@data_app.command("list", epilog="Example: vicinal data list")
def data_list(json: _Json = False, debug: _Debug = False) -> None:
    """List the supported data sets and formats, and how to name them."""
    with errors_reported(debug):
        from vicinal.reports.terminal import Terminal, print_sources

        if json:
            _print_json({k: {"spec": k + s.rest, "holds": s.holds} for k, s in SOURCES.items()})
        else:
            print_sources(Terminal())


@data_app.command("info", epilog="Example: vicinal data info folder:flowers --figure flowers.svg")
def data_info(
    spec: _Spec,
    root: _Root = None,
    figure: Annotated[
        Path | None, Option(help="Also draw example images or spectrograms into this .svg file.")
    ] = None,
    seed: _Seed = 0,
    test_fraction: _Fraction = TEST_FRACTION,
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Read a data set, and describe it.

    Prints numbers of examples, shapes, classes and ranges of values, and reports what was guessed
    or skipped.
    """
    with errors_reported(debug):
        from vicinal.data import describe, load
        from vicinal.reports.terminal import Terminal, print_description

        data = load(
            spec,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
        )
        described = describe(data)
        if json:
            _print_json(described)
        else:
            print_description(spec, described, Terminal())
        if figure is not None:
            from vicinal.reports.image_figures import write_examples

            write_examples(spec, data, figure)
            if not json:
                _print(f"figure: {figure}")


@data_app.command("fetch", epilog="Example: vicinal data fetch cifar10 --root data")
def data_fetch(
    name: Annotated[str, Argument(help=_ARCHIVES)],
    root: _Root = None,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Download the archives of a data set, and verify their checksums.

    Files with the right checksum are kept and not downloaded again. An interrupted download
    resumes if the server supports that.
    """
    stopped = "stopped; what was downloaded is kept: run the same command to resume"
    with errors_reported(debug, stopped=stopped):
        from vicinal.data import data_root
        from vicinal.data.fetch import fetch
        from vicinal.reports.progress import file_progress
        from vicinal.reports.terminal import Terminal

        with file_progress(Terminal(stderr=True)) as progress:
            paths = fetch(name, data_root(root), progress=progress)
        _print_paths(paths, json)


@data_app.command("convert", epilog="Example: vicinal data convert cifar10 cifar10.rec")
def data_convert(
    spec: _Spec,
    out: Annotated[Path, Argument(help="NAME.rec, NAME.npz, or a new folder.")],
    root: _Root = None,
    encoding: Annotated[
        str,
        Option(
            help="Image encoding: png, jpeg, raw, or same, which copies encoded color images "
            "and writes others as PNG."
        ),
    ] = "same",
    quality: Annotated[int, Option(help="JPEG quality, from 1 to 100.")] = 95,
    seed: _Seed = 0,
    test_fraction: _Fraction = TEST_FRACTION,
    skip_bad: _Skip = False,
    max_bytes: _MaxBytes = MAX_BYTES,
    json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Convert a data set to another format.

    The name of the output determines the format. NAME.rec writes one file for each split, such as
    NAME_train.rec and NAME_test.rec. Each has an .idx file, which MXNet reads. The names of the
    classes go into NAME_classes.txt. NAME.npz is one NumPy file. Any other name is a folder with
    one subfolder per split, each with one subfolder per class.
    """
    with errors_reported(debug, stopped="stopped; names of unfinished files contain .part"):
        from vicinal.data import load
        from vicinal.data.convert import convert
        from vicinal.reports.progress import file_progress
        from vicinal.reports.terminal import Terminal
        from vicinal.training.recipe_warnings import note_lines

        data = load(
            spec,
            root=root,
            seed=seed,
            test_fraction=test_fraction,
            skip_bad=skip_bad,
            max_bytes=max_bytes,
            in_memory=0,
        )
        for sentence in note_lines(data):
            report(sentence)
        if data.brightest not in (None, 255):
            report(f"pixels from 0 to {data.brightest:g} are written as 0 to 255")
        with file_progress(Terminal(stderr=True)) as progress:
            paths = convert(
                data,
                out,
                encoding=encoding,
                quality=quality,
                progress=progress,
                skipped=lambda split, sentence: report(f"skipped in {split}: {sentence}"),
            )
        _print_paths(paths, json)


def _print_paths(paths: list[Path], json: bool) -> None:
    if json:
        _print_json([str(path) for path in paths])
    else:
        for path in paths:
            _print(str(path))


def _print_json(value: Any) -> None:
    sys.stdout.write(dumps(value, indent=2) + "\n")


def _print(sentence: str) -> None:
    typer.echo(visible(sentence))


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # perhaps not in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
