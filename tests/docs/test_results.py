"""The table of baselines in the documents is the one that the result files give."""

import importlib.util
import json

from documents import ROOT


def load_tool():
    spec = importlib.util.spec_from_file_location("baselines", ROOT / "benchmarks" / "baselines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_baselines_is_up_to_date():
    table = load_tool().table()
    assert table.count("\n") >= 2, "a row for each classifier"
    assert table in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_a_result_names_what_makes_it_again():
    for path in load_tool().RESULTS.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content["command"].startswith("siser ") and content["machine"] and content["date"] and content["versions"], path
        assert len(content["recipe_sha256"]) == 64, path
