import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vicinal.reports import image_figures, output_figures, study_figures
from vicinal.reports.svg import figure_style, to_svg
from vicinal.training.trial_result import Outputs


@pytest.mark.parametrize("longest", ["9", "automobile", "American Staffordshire terrier"])
def test_the_words_below_blended_examples_do_not_touch(tmp_path, monkeypatch, longest):
    classes = np.array([longest, longest, "cat"] * 2)
    images = np.zeros((6, 3, 8, 8), dtype=np.uint8)
    lam = np.array([0.0, 1.0, 0.25] * 2)
    own = {"own": images, "own_class": classes}
    met = {"met": images, "met_class": classes[[1, 0, 0, 1, 0, 0]]}
    np.savez(tmp_path / "few.npz", **own, **met, blend=images, lam=lam, brightest=255)
    drawn = []
    monkeypatch.setattr(image_figures, "to_svg", lambda *parts: drawn.append(parts[-1]))
    image_figures.blends_figure(tmp_path / "few.npz")
    (figure,) = drawn
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for row in range(3):
        labels = figure.axes[row].get_xticklabels()
        assert len(labels) == 6
        boxes = [label.get_window_extent(renderer) for label in labels]
        for left, right in itertools.pairwise(boxes):
            assert left.x1 < right.x0


@pytest.mark.parametrize("center", [30_000, -30_000, 300_000, 0.0123])
def test_the_numbers_below_the_intervals_do_not_touch(monkeypatch, center):
    low, high = sorted((0.997 * center, 1.003 * center))
    metric = {"value": center, "low": low, "high": high}
    rows = [{"arm": "erm", "condition": "true labels", "n": 3, "metrics": {"rmse": metric}}]
    settings = {"arms": {"erm": {"title": "ERM"}}, "corrupted_labels": [0.0]}
    names = {"rmse": {"title": "RMSE", "percent": False, "unit": ""}}
    summary = {"metric": "rmse", "metrics": names, "rows": rows, "settings": settings}
    drawn = []
    monkeypatch.setattr(study_figures, "to_svg", lambda *parts: drawn.append(parts[-1]))
    study_figures.metric_figure(summary)
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    drawn[0].draw(renderer)
    labels = [one for one in drawn[0].axes[0].get_xticklabels() if one.get_text()]
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert len(boxes) > 2
    for left, right in itertools.pairwise(boxes):
        assert left.x1 + 15 < right.x0  # a browser may have a wider font


@pytest.mark.parametrize(("examples", "drawn"), [(100, 15), (7, 7), (200, 15)])
def test_calibration_shows_every_bin_if_all_have_few_predictions(monkeypatch, examples, drawn):
    logits = np.random.default_rng(0).normal(size=(examples, 3))
    outputs = {"erm": [Outputs(logits, None, logits.argmax(1))]}
    settings = {"arms": {"erm": {"title": "ERM"}}}
    summary = {"task": "classification", "rows": [], "settings": settings}
    figures = []
    monkeypatch.setattr(output_figures, "to_svg", lambda *parts: figures.append(parts[-1]))
    output_figures.reliability_figure(summary, outputs, "true labels")
    _, line = figures[0].axes[0].lines
    assert len(line.get_xdata()) == drawn


def test_styles_of_the_program_do_not_change_figures():
    def drawn():
        with figure_style():
            figure = Figure(figsize=(3, 2))
            figure.add_subplot().plot([0, 1], [1, 0], label="ERM")
            return to_svg("line", "a line", figure).svg

    expected = drawn()
    with matplotlib.rc_context({"text.usetex": True, "axes.grid": True, "lines.linestyle": "--"}):
        assert drawn() == expected
        assert matplotlib.rcParams["axes.grid"]
