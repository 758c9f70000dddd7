"""The tables of hyper-parameters in the documentation are those of the code."""

from dataclasses import fields

from agents.settings import TUNED
from agents.settings_table import MARKED, PAGE, settings_tables


def test_the_page_has_the_tuned_settings():
    [shown] = MARKED.findall(PAGE.read_text(encoding="utf-8"))
    assert shown == settings_tables(), "write them by: python -m agents.settings_table"


def test_every_setting_of_every_environment_is_in_it():
    text = settings_tables()
    for (env, _), settings in TUNED.items():
        assert f" {env} " in text
        assert all(f"`{field.name}`" in text for field in fields(settings))
