"""Recipes: those that come along are valid, users' own extend them, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.configuration import config_path
from archiver.errors import UsageError
from archiver.quantize.recipes import list_recipes, read_recipe, user_recipes


@pytest.fixture(autouse=True)
def own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user_recipes().mkdir(parents=True)
    return user_recipes()


def write(directory: Path, name: str, text: str) -> str:
    file = directory / name
    file.write_text(text)
    return str(file)


def test_every_recipe_that_comes_along_is_valid_and_its_producer_exists():
    recipes = list_recipes()
    assert {recipe.name for recipe in recipes} == {file.stem for file in config_path("recipes").iterdir()}
    assert all(recipe.producer.file.is_file() for recipe in recipes)


def test_the_files_state_every_option_that_they_do_not_inherit():
    for recipe in list_recipes():
        text = config_path(f"recipes/{recipe.name}.yaml").read_text()
        assert "extends:" in text or all(f"  {option}:" in text for option in recipe.options), recipe.name


@pytest.mark.parametrize(("name", "is_calibrated"), [("gptq-int4", True), ("awq-int4", True), ("nf4", False), ("fp8-dynamic", False)])
def test_a_recipe_is_calibrated_as_its_method_asks(name, is_calibrated):
    assert read_recipe(name).needs_calibration is is_calibrated


def test_a_file_extends_a_recipe_option_by_option(tmp_path):
    recipe = read_recipe(write(tmp_path, "fine.yaml", "extends: gptq-int4\noptions: {group_size: 32}"))
    base = read_recipe("gptq-int4")
    assert recipe.name == "fine"
    assert recipe.options == {**base.options, "group_size": 32}
    assert (recipe.producer, recipe.format, recipe.needs_calibration) == (base.producer, base.format, True)


def test_a_file_extends_another_file_beside_it(tmp_path):
    write(tmp_path, "fine.yaml", "extends: gptq-int4\noptions: {group_size: 32}")
    recipe = read_recipe(write(tmp_path, "finer.yaml", "extends: fine.yaml\nsummary: two\noptions: {bits: 8}"))
    assert (recipe.options["group_size"], recipe.options["bits"], recipe.summary) == (32, 8, "two")


def test_recipes_in_the_users_directory_go_by_name(own_recipes):
    write(own_recipes, "ours.yaml", "extends: nf4\noptions: {double_quantization: true}")
    assert read_recipe("ours").options["double_quantization"] is True
    assert "ours" in {recipe.name for recipe in list_recipes()}


def test_a_recipe_that_comes_along_cannot_be_replaced(own_recipes):
    write(own_recipes, "nf4.yaml", "extends: int8")
    assert read_recipe("nf4").options["method"] == "nf4"


def test_a_variant_sets_an_option():
    recipe = read_recipe("gguf:Q8_0")
    assert (recipe.name, recipe.label, recipe.options["type"]) == ("gguf:Q8_0", "gguf-Q8_0", "Q8_0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: gptq-int4\noptions: {groupsize: 32}", "unknown key options.groupsize; did you mean 'group_size'?"),
        ("extends: gptq-int4\noption: {}", "unknown key 'option'; did you mean 'options'?"),
        ("extends: gptq-int4\noptions: {group_size: '32'}", "options.group_size: "),
        ("extends: gptq-int4\noptions: {damping: 1.5}", "less than or equal to 1"),
        ("extends: gptq-int4\noptions: {method: gptk}", "options.method is 'gptk'; did you mean 'gptq'?"),
        ("extends: gptq-int\n", "no recipe named 'gptq-int'; did you mean 'gptq-int4'?"),
        ("extends: wrong.yaml\n", "extends itself"),
        ("extends: none.yaml\n", "no such recipe"),
        ("summary: a\nformat: b\nproducer: torchoa", "no producer 'torchoa'; did you mean 'torchao'?"),
        ("summary: a\nproducer: torchao", "needs format"),
        ("- a", "must be a mapping"),
        ("options: 3", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, text, message):
    file = write(tmp_path, "wrong.yaml", text)
    with pytest.raises(UsageError) as error:
        read_recipe(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gptq", "did you mean 'gptq-int4'?"), ("nf4:Q4", "has no variants"), ("/no/such.yaml", "no such recipe: /no/such.yaml")],
)
def test_a_wrong_name_is_explained(name, message):
    with pytest.raises(UsageError) as error:
        read_recipe(name)
    assert message in str(error.value)
