"""Running the command line inside the tests."""

import pytest

from llmsched_env.cli.app import main


@pytest.fixture
def llmsched(capsys):
    """Runs `llmsched` with these words; its exit status, stdout and stderr."""

    def run(*words):
        status = main([str(word) for word in words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def trace(tmp_path):
    """A trace of 20 requests, four a second, with growing prompts."""
    path = tmp_path / "mine.csv"
    lines = (f"{i / 4},{100 + i},{1 + i % 3}" for i in range(20))
    path.write_text("arrival,prompt_tokens,output_tokens\n" + "\n".join(lines))
    return path
