"""What an installed mjx_dex must hold, and how its parts are found by name."""

import tomllib
from pathlib import Path

import mjx_dex
import robot_bridge
from mjx_dex import settings, sources
from robot_bridge import policies

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_packages_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in (mjx_dex, robot_bridge):
        folder = Path(package.__file__).parent
        patterns = project["tool"]["setuptools"]["package-data"][package.__name__]
        packaged = {path for pattern in patterns for path in folder.glob(pattern)}
        files = {x for x in folder.rglob("*") if x.is_file() and x.suffix != ".py"}
        files = {x for x in files if "__pycache__" not in x.parts}
        assert packaged and files == packaged


def test_a_packaged_policy_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = Path(robot_bridge.__file__).resolve().parent / "policies/near.dex"
    for name in ("near.dex", "policies/near.dex"):
        assert policies.find(name) == packaged
        assert sources.config_of(Path(name)) == sources.config_of(packaged)


def test_a_folder_that_is_there_comes_before_a_packaged_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.dex").mkdir()
    assert policies.find("near.dex") == Path("near.dex")


def test_a_packaged_policy_does_not_stand_in_for_a_mistyped_folder(tmp_path):
    for name in (tmp_path / "near.dex", Path("elsewhere/near.dex"), Path("nar.dex")):
        assert policies.find(name) == name


def test_presets_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.load("quickstart").num_envs == 512
