"""The table of chips against independent facts."""

import pytest

from moe_jax.cost_model.chips import CHIPS, GIB, get_chip
from moe_jax.errors import UserError
from moe_jax.training.monitoring.hardware import peak_flops, peak_flops_of_chip

by_chip = pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)

# Matrix units of a chip and their width: Google's page of each chip. One multiplies and adds
# width x width pairs a cycle. Not v6e: the two of its page, 256 wide, would make half its peak.
MATRIX_UNITS = {"v4": (8, 128), "v5e": (4, 128), "v5p": (8, 128)}
# HBM, GiB: Google's page of each chip; of v5p the physical size, of which the page has 95.
HBM = {"v4": 32, "v5e": 16, "v5p": 96, "v6e": 32, "tpu7x": 192}
# "Bidirectional inter-chip interconnect (ICI) bandwidth per chip", GB/s: the pages of v5e, v5p,
# v6e and tpu7x.
ICI_PER_CHIP = {"v5e": 400, "v5p": 1200, "v6e": 800, "tpu7x": 1200}


@pytest.mark.parametrize("name", MATRIX_UNITS)
def test_the_clock_times_the_matrix_units_is_the_peak(name):
    chip, (units, width) = get_chip(name), MATRIX_UNITS[name]
    assert chip.clock * units * width**2 * 2 == pytest.approx(chip.peak_flops, rel=2e-3)


def test_v6e_is_v5e_with_units_of_twice_the_width_at_its_clock():
    new, old = get_chip("v6e"), get_chip("v5e")
    assert new.peak_flops / old.peak_flops == pytest.approx(4 * new.clock / old.clock, rel=2e-3)


@pytest.mark.parametrize("name", ICI_PER_CHIP)
def test_links_carry_nine_tenths_of_the_published_bandwidth(name):
    """Of a chip's links, two for each dimension, in both directions."""
    chip = get_chip(name)
    links = 2 * chip.torus_dimensions
    assert 2 * links * chip.ici_link_bandwidth == pytest.approx(0.9 * ICI_PER_CHIP[name] * 1e9)


@by_chip
def test_the_peak_is_that_of_the_runs(chip):
    assert chip.peak_flops == peak_flops_of_chip(chip.device_kind)
    assert chip.peak_flops == chip.devices * peak_flops(chip.device_kind)


@by_chip
def test_figures_are_of_the_right_size(chip):
    assert 0.95 < chip.hbm_limit / GIB / HBM[chip.name] < 1
    assert chip.hbm_limit_per_device * chip.devices == chip.hbm_limit
    # The FLOPs for each byte of HBM, and for each byte of a link, that keep a chip busy.
    assert 150 < chip.peak_flops / chip.hbm_bandwidth < 600
    assert 4e3 < chip.peak_flops / chip.ici_link_bandwidth < 3e4
    assert chip.name_counts in ("cores", "chips")


def test_devices_are_chips_but_on_ironwood():
    assert {chip.name: chip.devices for chip in CHIPS} == {
        "v4": 1,
        "v5e": 1,
        "v5p": 1,
        "v6e": 1,
        "tpu7x": 2,
    }
    assert get_chip("tpu7x").hbm_limit_per_device == 94.75 * GIB


def test_names_and_aliases():
    assert get_chip("Ironwood") is get_chip("tpu7x") is get_chip("TPU7x")
    assert get_chip("v5litepod") is get_chip("v5e")
    assert get_chip("trillium") is get_chip("v6e")
    assert len({chip.device_kind for chip in CHIPS}) == len(CHIPS)


def test_an_unknown_chip_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match=r"no TPU chip is called 'v5lite'.*v4, v5e.*'v5litepod'\?"):
        get_chip("v5lite")
    with pytest.raises(UserError) as error:
        get_chip("h100")
    assert "\n" not in str(error.value)
