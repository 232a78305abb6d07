import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vicinal.reports import image_figures


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
