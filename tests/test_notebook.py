import sys

import pytest

from mjx_dex.notebook import command


def test_what_a_command_prints_appears_in_the_cell(capsys):
    command("""python -c 'import sys; print("said"); print("told", file=sys.stderr)'""")
    assert sorted(capsys.readouterr().out.split()) == ["said", "told"]


def test_it_is_this_python(capsys):
    command("python -c 'import sys; print(sys.executable)'")
    assert capsys.readouterr().out.strip() == sys.executable


def test_a_failure_is_an_error_and_is_shown(capsys):
    with pytest.raises(RuntimeError, match="this failed: python"):
        command("python -m mjx_dex.evaluate /none")
    assert "there is no run or bundle in /none" in capsys.readouterr().out


def test_other_programs_are_refused():
    with pytest.raises(ValueError, match="not ls"):
        command("ls")
