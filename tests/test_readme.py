"""README tells the truth: its table is that of the cards, its commands are those that run."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from ssl_demo.cli import _parser
from ssl_demo.pretext import all_tasks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "benchmarks"))


def test_table_of_tasks_is_that_of_the_cards():
    import readme_table

    assert readme_table.with_table(README) == README, "run python benchmarks/readme_table.py --write"


def test_an_installed_copy_holds_all_files_that_the_package_reads():
    tomllib = pytest.importorskip("tomllib")

    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    listed = {path for package, patterns in kept.items() if package != "ssl_demo.weights" for pattern in patterns
              for path in ROOT.joinpath(*package.split(".")).glob(pattern)}
    there = {path for path in (ROOT / "ssl_demo").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".pyi")}
    assert there == listed and any(path.parent.name == "lectures" for path in there)


def test_front_matter_is_what_a_space_needs():
    front = dict(line.split(": ", 1) for line in README.split("---")[1].strip().splitlines())
    assert front["sdk"] == "gradio" and (ROOT / front["app_file"]).is_file()
    assert f"gradio=={front['sdk_version']}" in (ROOT / "constraints.txt").read_text()
    assert len(front["short_description"]) <= 60


def test_ci_runs_the_line_that_readme_gives():
    lines = re.findall(r"^python3 -m venv .*pytest.*$", README, re.MULTILINE)
    assert len(lines) == 1 and "README.md" in (ROOT / ".ci" / "run").read_text()


LINES = re.findall(r"^(?:python|torchrun.*|accelerate.*) -m ssl_demo (.+?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_command_lines_parse(line):
    options = _parser().parse_args(shlex.split(line))
    assert callable(options.command) and getattr(options, "task", "mae") in all_tasks()


def test_launch_lines_parse():
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    parsers = {"accelerate launch": launch_command_parser(), "torchrun": get_args_parser()}
    lines = re.findall(r"^(accelerate launch|torchrun) (.+? -m ssl_demo) ", README, re.MULTILINE)
    counted = [vars(parsers[launcher].parse_args(line.split())) for launcher, line in lines]
    assert [options.get("num_processes", options.get("nproc_per_node")) for options in counted] == [8, 16, "2"]


def test_files_it_links_to_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links and all((ROOT / link).exists() for link in links)
