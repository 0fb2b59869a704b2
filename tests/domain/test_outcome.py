"""Outcomes that the engine builds itself."""

from tandem.domain.outcome import Failed, FailureClass, too_large


def test_too_large_output_names_the_bound_the_setting_and_the_way_around() -> None:
    assert too_large("stdout of node `loud`", 50_000_000, 16_777_216) == Failed(
        failure_class=FailureClass.OUTPUT_TOO_LARGE,
        message="stdout of node `loud` has 50,000,000 bytes, more than the 16,777,216 allowed; "
        "raise TANDEM_OUTPUT_MAX_BYTES, or write a file and name it in "
        "`output_contract.required_files`",
    )
    other = too_large("it", 2, 1, instead="ask for less")
    assert other.message.endswith("; raise TANDEM_OUTPUT_MAX_BYTES, or ask for less")
