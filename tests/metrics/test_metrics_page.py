"""docs/metrics.md: its programs run, and the options that it names exist."""

import inspect
import re
from pathlib import Path

from pix2seq_d import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")


def test_programs_run(capsys):
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    namespace = {}
    for program in programs:
        exec(program, namespace)
    # car: the same two pixels, matched in both frames; VPQ loses the tube of k = 2, (1 + 2 / 3) / 2
    assert "'pq': 1.0" in capsys.readouterr().out
    assert abs(namespace["metrics"][1].compute()["vpq"] - 5 / 6) < 1e-12


def test_options_of_the_table_exist():
    rows = re.findall(r"^\| `(\w+)` \| (.*)$", PAGE, re.MULTILINE)
    named = {name: set(re.findall(r"[`, ](\w+)=", row)) for name, row in rows}
    assert set(named) == {name for name in metrics.__all__ if name[0].isupper()}
    for name, options in named.items():
        assert options <= set(inspect.signature(getattr(metrics, name)).parameters), name
    assert sum(map(len, named.values())) >= 8
