import json

import pytest

from asrkern._optional import require


def test_a_package_that_is_there_is_returned():
    assert require("json", "cli") is json
    assert require("json.decoder", "cli") is json.decoder


def test_a_missing_one_is_named_with_what_installs_it():
    with pytest.raises(
        ImportError, match=r"no_such_package is not installed: pip install 'asrkern\[train\]'"
    ):
        require("no_such_package.part", "train")
