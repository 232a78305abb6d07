"""The calibration error against torchmetrics, which scripts/test-networks installs.

Lightning Fabric imports torchmetrics if it is installed, so it would slow down all other tests.
"""

import pytest
import torch

from vicinal.probes import calibration_of_logits

classification = pytest.importorskip(
    "torchmetrics.functional.classification", reason="scripts/test-networks installs it"
)


def test_ece_agrees_with_torchmetrics_where_bins_of_equal_width_are_also_of_equal_mass():
    # Confidences spread evenly over the upper 14 of 28 bins of width 1 / 28, and one more below.
    confidence = (torch.arange(150) + 0.5).double() / 150
    confidence = 1 / 2 + confidence / 2
    y = (torch.rand(150, generator=torch.Generator().manual_seed(0)) > confidence).long()
    p = torch.stack([confidence, 1 - confidence], 1)
    expected = classification.multiclass_calibration_error(p, y, 2, n_bins=30)
    assert calibration_of_logits(p.log(), y).raw.ece == pytest.approx(float(expected), abs=1e-6)
