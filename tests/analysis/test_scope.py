"""How some settings are described: against a slow reading of the description, and as people would say it."""

import itertools

import numpy as np
import pytest

from ablate.analysis.scope import describe

FACTORS = ("bn", "crop", "drop")
LEVELS = (("true", "false"), ("none", "pad", "resized"), ("0", "0.1", "0.3"))
PLANNED = list(itertools.product(*LEVELS))


def meant(found, planned=PLANNED, factors=FACTORS):
    """Read a description: the settings in which any, or none, of its terms holds."""

    def holds(setting):
        return any(
            all(setting[factors.index(factor)] in levels for factor, levels in term) for term in found.terms
        )

    return {setting for setting in planned if holds(setting) != found.outside}


@pytest.mark.parametrize("seed", range(60))
def test_a_description_means_the_chosen_settings_and_no_other(seed):
    rng = np.random.default_rng(seed)
    planned = [setting for setting in PLANNED if rng.random() < (1, 0.7)[seed % 2]]
    chosen = {setting for setting in planned if rng.random() < rng.choice([0.1, 0.5, 0.9])} or {planned[0]}
    found = describe(FACTORS, chosen, planned)
    if len(chosen) == len(planned):
        assert found is None
    else:
        assert meant(found, planned) == chosen
        assert (found.settings, found.planned) == (len(chosen), len(planned))


@pytest.mark.parametrize(
    ("chosen", "terms", "outside"),
    [
        (lambda s: s[0] == "false", ((("bn", ("false",)),),), False),
        (lambda s: s[1] == "pad" and s[2] == "0", ((("crop", ("pad",)), ("drop", ("0",))),), False),
        (lambda s: s[1] != "pad", ((("crop", ("pad",)),),), True),
        (lambda s: (s[0], s[2]) != ("false", "0.3"), ((("bn", ("false",)), ("drop", ("0.3",))),), True),
        (
            lambda s: (s[0] == "true") == (s[2] == "0"),
            ((("bn", ("true",)), ("drop", ("0",))), (("bn", ("false",)), ("drop", ("0.1", "0.3")))),
            False,
        ),
    ],
)  # fmt: skip
def test_it_takes_as_few_levels_as_can_be(chosen, terms, outside):
    found = describe(FACTORS, [setting for setting in PLANNED if chosen(setting)], PLANNED)
    assert (found.terms, found.outside) == (terms, outside)


def test_all_settings_and_none_need_no_description():
    assert describe(FACTORS, PLANNED, PLANNED) is None
    assert describe(FACTORS, [], PLANNED) is None


def test_what_follows_from_another_factor_is_not_said():
    # The second factor is active only where the first is not 0.
    planned = [("0", "off"), ("0.1", "off"), ("0.1", "on")]
    assert describe(("drop", "mc"), [("0", "off")], planned).terms == ((("drop", ("0",)),),)


def test_thousands_of_scattered_settings_are_described_at_once():
    planned = list(itertools.product("ab", repeat=12))
    chosen = [setting for setting in planned if setting.count("a") % 2]
    assert len(describe([str(i) for i in range(12)], chosen, planned).terms) == 2048
