"""The LaTeX table; Markdown and CSV are tested with the text and with hostile names."""

import re

from made_up import made_up_study

from vicinal.reports.table_files import latex, tex_escaped
from vicinal.studies.summary import summarized


def test_every_character_that_latex_obeys_is_escaped():
    told = tex_escaped('50% of $x_1$ & #2 {a} \\b ^ ~ <c> | "d" −1 ±2 [3] e\x1b \u202e 猫')
    bare = re.sub(r"\\(text\w+\{\}|[#$%&_{}])|\$-\$|\$\\pm\$|\{\[\}", "", told)
    assert not set(bare) & set('#$%&_{}^~<>|["')
    assert told.startswith(r"50\% of \$x\_1\$ \& \#2 \{a\} \textbackslash{}b")
    assert "猫" in told
    assert r"\textbackslash{}x1b" in told


def test_the_latex_table_has_the_cells_of_every_row_in_groups(tmp_path):
    study = made_up_study(
        tmp_path, corrupted_labels=(0.0, 0.4), titles={"arm1": "50% & more", "arm2": "a_b"}
    )
    lines = latex(summarized(study)).splitlines()
    assert lines[0] == r"% \usepackage{booktabs}"
    columns = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[3])[1]
    rows = [line for line in lines if line.endswith(r" \\") and "multicolumn" not in line]
    assert len(rows) == 1 + 6
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    groups = [line for line in lines if "multicolumn" in line]
    assert [re.search(r"emph\{(.*)\}\}", line)[1] for line in groups] == [
        "true labels",
        r"40\% corrupted",
    ]
    assert rows[2].startswith(r"50\% \& more & ")
    assert [lines.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
