"""What makes any result on a data set doubtful, whatever its source."""

from torch import Tensor

from vicinal.data.dataset import DataSet, Note, Split
from vicinal.errors import UserError

_ROWS = 16  # of inputs in files that are compared


def sanity_notes(data: DataSet) -> tuple[Note, ...]:
    """Return a doubtful note for classes without examples, and for inputs that are all the same.

    Example:
        >>> import torch
        >>> split = Split(torch.ones(2, 1), torch.tensor([0, 0]))
        >>> [note.text for note in sanity_notes(DataSet(("cat", "dog"), split, split))]
        ['the train split has no example of 1 of 2 classes: dog', \
'the test split has no example of 1 of 2 classes: dog', \
'all training examples are of one class, cat', 'all training inputs are the same']
    """
    notes = []
    if data.classes:
        for name, split in data.splits.items():
            counts = split.targets.bincount(minlength=len(data.classes))
            missing = [data.classes[k] for k in (counts == 0).nonzero().flatten().tolist()]
            if missing:
                more = ", ..." if len(missing) > 5 else ""
                notes.append(
                    f"the {name} split has no example of {len(missing)} of {len(data.classes)} "
                    f"classes: {', '.join(missing[:5])}{more}"
                )
        present = data.train.targets.unique().tolist()
        if len(present) == 1:
            notes.append(f"all training examples are of one class, {data.classes[present[0]]}")
    if is_constant(data.train):
        notes.append("all training inputs are the same")
    return tuple(Note(text, doubtful=True) for text in notes)


def is_constant(split: Split) -> bool:
    """Return whether all inputs are the same; of inputs in files, a sample is compared."""
    inputs = split.inputs
    if not isinstance(inputs, Tensor):
        try:
            inputs = split.read(range(0, len(split), -(-len(split) // _ROWS))).inputs
        except UserError:  # a damaged example, which training will name
            return False
    if len(split) < 2 or len(inputs) < 2 or not bool((inputs[0] == inputs[-1]).all()):
        return False
    return all(bool((piece == inputs[:1]).all()) for piece in inputs.split(1024))
