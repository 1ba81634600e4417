"""The job that runs the suite: its report says what ran and what did not, and it ends as pytest ended."""

import json

import pytest

import harald
from harald import cli
from harald.jobs import concise_errors
from harald.jobs import tests as job
from harald.settings import resolve

SUITE = '''
import pytest

def test_good(): pass
@pytest.mark.skip(reason="no <GPU> here")
def test_left(): pass
@pytest.mark.modal
def test_of_the_command_line(): assert False
def test_bad():
    """Asked for by name alone."""
    assert 1 == 2, "one is <not> two"
'''


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A checkout with four tests in the place of ours."""
    root = tmp_path / "checkout"
    for folder in ("tests", "harald"):
        (root / folder).mkdir(parents=True)
    (root / "tests" / "test_some.py").write_text(SUITE)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["modal: x"]\n')
    monkeypatch.setattr(harald, "__file__", str(root / "harald" / "__init__.py"))
    return root


def test_report_names_the_device_what_passed_and_why_what_was_skipped(suite, runtime):
    result = job.run(runtime, resolve("tiny"), "a", select="good or left")
    assert {name: result[name] for name in job.OUTCOMES} == {"passed": 1, "failed": 0, "error": 0, "skipped": 1}
    assert result["exit_code"] == 0 and "CPU" in result["device"]
    page = (runtime.output / "tests/a/report.html").read_text()
    assert str(runtime.output / "tests/a/report.html") == result["report"]
    assert "All tests that ran passed." in page and job.device() in page
    assert "no &lt;GPU&gt; here" in page and "test_good" in page and "test_of_the_command_line" not in page
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is fetched


def test_failure_ends_the_command_with_pytests_code_after_the_report_is_written(suite, runtime):
    with pytest.raises(job.TestsFailed, match="exit code 1") as failed:
        job.run(runtime, resolve("tiny"), "a", select="bad")
    assert failed.value.exit_code == 1
    page = (runtime.output / "tests/a/report.html").read_text()
    assert "pytest ended with exit code 1" in page and "one is &lt;not&gt; two" in page


def test_other_codes_of_pytest_reach_the_shell(suite, runtime, monkeypatch, capsys):
    """5: no test was found."""
    monkeypatch.setenv("HARALD_ROOT", str(runtime.root))
    with pytest.raises(SystemExit) as ended:
        cli.main(["tests", "--preset", "tiny", "--run-name", "none", "--select", "nothing_is_called_so"])
    assert ended.value.code == 5 and "error: pytest ended with exit code 5" in capsys.readouterr().err
    assert "exit code 5" in (runtime.output / "tests/none/report.html").read_text()
    assert json.loads((runtime.output / "tests/none/status.json").read_text())["state"] == "failed"
    with pytest.raises(SystemExit) as ended, concise_errors():
        job.run(runtime, resolve("tiny"), "remote", select="nothing_is_called_so")
    assert ended.value.code == 5


def test_suite_that_cannot_be_collected_still_ends_with_a_report(suite, runtime):
    (suite / "tests" / "test_broken.py").write_text("import nothing_of_this_name")
    with pytest.raises(job.TestsFailed, match="exit code"):
        job.run(runtime, resolve("tiny"), "a")
    assert "nothing_of_this_name" in (runtime.output / "tests/a/report.html").read_text()
