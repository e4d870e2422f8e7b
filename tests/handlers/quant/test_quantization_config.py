"""What config.json says of quantized weights."""

import pytest

from handlers.errors import ConfigError
from handlers.quant.quantization_config import StoredQuantization, find_quantization

GPTQ = {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize(
    "config",
    [{"quantization_config": GPTQ}, {"compression_config": GPTQ}, {"text_config": {"quantization_config": GPTQ}}],
)
def test_the_section_is_found_wherever_writers_put_it(config):
    assert find_quantization(config) == StoredQuantization("gptq", GPTQ)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}, {"text_config": None}])
def test_plain_weights_have_none(config):
    assert find_quantization(config) is None


def test_early_bitsandbytes_checkpoints_do_not_name_it():
    found = find_quantization({"quantization_config": {"load_in_8bit": True}})
    assert found is not None
    assert found.method == "bitsandbytes"


@pytest.mark.parametrize(("section", "message"), [([4], "must be an object, not list"), ({"bits": 4}, "lacks quant_method")])
def test_a_section_that_says_nothing_is_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        find_quantization({"quantization_config": section})
